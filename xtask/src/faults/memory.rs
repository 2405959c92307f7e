//! Bounds of memory for workers: a control group each, of version 1 or 2. Wants root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Where the kernel shows groups: version 2, and the hierarchy of version 1 that counts memory.
const V2: &str = "/sys/fs/cgroup";
const V1: &str = "/sys/fs/cgroup/memory";
const MIB: u64 = 1024 * 1024;

/// A group for each worker, below one of ours. They are removed with this, when nobody is in them any more.
pub(crate) struct MemoryGroups {
    ours: PathBuf,
    version: Version,
    limit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Whether this process may make such groups.
pub(crate) fn can_be_bounded() -> bool {
    MemoryGroups::make(1).is_ok()
}

impl MemoryGroups {
    /// Groups that may have so many MiB.
    pub(crate) fn make(mib: u64) -> Result<Self> {
        let name = format!("longshore-faults-{}", std::process::id());
        let (root, version) = match Path::new(V1).join("memory.limit_in_bytes").exists() {
            true => (V1, Version::One),
            false => (V2, Version::Two),
        };
        let ours = Path::new(root).join(name);
        if !ours.exists() {
            fs::create_dir(&ours).with_context(|| format!("{}", ours.display()))?;
        }
        let groups = Self { ours, version, limit: mib * MIB };
        if version == Version::Two {
            groups.write(&groups.ours, "cgroup.subtree_control", "+memory")?;
        }
        Ok(groups)
    }

    /// Puts a process into the group of this name, where its memory counts from now on. The group stays when it ends.
    pub(crate) fn join(&self, name: &str, pid: u32) -> Result<()> {
        let group = self.ours.join(name);
        if !group.exists() {
            fs::create_dir(&group)?;
            match self.version {
                Version::One => self.write(&group, "memory.limit_in_bytes", &self.limit.to_string())?,
                Version::Two => {
                    self.write(&group, "memory.max", &self.limit.to_string())?;
                    self.write(&group, "memory.swap.max", "0")?;
                }
            }
        }
        self.write(&group, "cgroup.procs", &pid.to_string())
    }

    fn write(&self, group: &Path, file: &str, text: &str) -> Result<()> {
        let path = group.join(file);
        fs::write(&path, text).with_context(|| format!("{} takes no `{text}`", path.display()))
    }
}

impl Drop for MemoryGroups {
    fn drop(&mut self) {
        let groups = fs::read_dir(&self.ours).into_iter().flatten().flatten().map(|entry| entry.path());
        for group in groups.filter(|path| path.is_dir()).chain([self.ours.clone()]) {
            // One that is in use stays, and harms nobody.
            let _ = fs::remove_dir(group);
        }
    }
}
