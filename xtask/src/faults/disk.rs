//! A disk of its own for a server: a file system in a file. Wants root.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// What fills a disk, and how it is written.
const BALLAST: &str = "ballast";
const BALLAST_PIECE_BYTES: usize = 64 * 1024;

/// A file system in a file, mounted; unmounted when dropped.
pub(crate) struct Disk {
    file: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Makes one of so many bytes below this folder.
    pub(crate) fn make(folder: &Path, bytes: u64) -> Result<Self> {
        let file = folder.join("disk");
        File::create(&file)?.set_len(bytes)?;
        // Nothing is left for a thread of the kernel to write later.
        let whole = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        succeed(Command::new("mkfs.ext4").args(whole).arg(&file))?;
        let disk = Self::mount(&file)?;
        // The server has an account of its own.
        succeed(Command::new("chmod").arg("1777").arg(&disk.at))?;
        Ok(disk)
    }

    /// Mounts what is in this file; what its journal holds is done first, as after a loss of power.
    pub(crate) fn mount(file: &Path) -> Result<Self> {
        let at = file.with_extension("mounted");
        fs::create_dir_all(&at)?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(file).arg(&at)).context("mounting wants root")?;
        Ok(Self { file: file.to_owned(), at })
    }

    /// Where it is mounted.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Writes down what is only in memory.
    pub(crate) fn sync(&self) -> Result<()> {
        succeed(Command::new("sync").arg("--file-system").arg(&self.at))
    }

    /// A copy of what is on the disk, without what is only in memory.
    pub(crate) fn copy(&self, name: &str) -> Result<PathBuf> {
        let copy = self.file.with_file_name(name);
        succeed(Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(&self.file).arg(&copy))?;
        Ok(copy)
    }

    /// Fills it to its last block.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.at.join(BALLAST))?;
        loop {
            match ballast.write_all(&[0x55; BALLAST_PIECE_BYTES]).and_then(|()| ballast.sync_data()) {
                Ok(()) => {}
                Err(full) if full.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(other) => bail!("{}: {other}", self.at.display()),
            }
        }
    }

    /// Makes room again.
    pub(crate) fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.at.join(BALLAST))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
