//! The programs of Postgres: where they are, and how they are told which database is meant.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread::{self, JoinHandle},
};

use super::BackupError;

/// Where Debian keeps the programs of each version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";
/// What is kept of a program's complaints.
const COMPLAINT_MAX_BYTES: u64 = 4 * 1024;
/// Parameters of a URL that only our driver knows.
const DRIVERS_OWN: [&str; 1] = ["statement-cache-capacity"];

/// A program of Postgres: of the newest version that Debian has installed, else whichever stands in the path.
pub(super) fn program(name: &str) -> PathBuf {
    let mut versions: Vec<_> = fs::read_dir(DEBIAN_FOLDER).into_iter().flatten().flatten().collect();
    versions.sort_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or_default());
    let mut newest_first = versions.into_iter().rev().map(|version| version.path().join("bin").join(name));
    newest_first.find(|path| path.exists()).unwrap_or_else(|| name.into())
}

/// A program that is told of the database: the password goes by the environment, since everybody sees arguments.
pub(super) fn on_database(name: &str, url: &str) -> Result<Command, BackupError> {
    let failed =
        |reason: &str| BackupError::Refused(format!("the URL of Postgres cannot be given to {name}: {reason}"));
    let mut url: reqwest::Url = url.parse().map_err(|_| failed("it cannot be read"))?;
    let mut password = url.password().map(decoded);
    let _ = url.set_password(None);
    let pairs: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    if !pairs.is_empty() {
        url.set_query(None);
        for (name, value) in pairs {
            match name.as_str() {
                "password" => password = Some(value),
                own if DRIVERS_OWN.contains(&own) => {}
                _ => _ = url.query_pairs_mut().append_pair(&name, &value),
            }
        }
    }
    let mut command = Command::new(program(name));
    command.arg("--dbname").arg(url.as_str()).arg("--no-password").env("PGAPPNAME", "longshore backup");
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    Ok(command)
}

/// A text of a URL without its `%` codes.
fn decoded(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Starts it, and says what to do where it is not there.
pub(super) fn start(command: &mut Command) -> Result<Child, BackupError> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.stderr(Stdio::piped()).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BackupError::Refused(format!(
            "there is no {name} on this machine: install the client programs of Postgres (`apt-get install postgresql-client`), of \
             the server's version or newer"
        )),
        _ => BackupError::Failed(format!("{name}: {error}")),
    })
}

/// Collects what a program complains of.
pub(super) struct Complaints(JoinHandle<String>);

impl Complaints {
    pub(super) fn of(stderr: Option<ChildStderr>) -> Self {
        Self(thread::spawn(move || {
            let Some(mut stderr) = stderr else { return String::new() };
            let mut kept = Vec::new();
            // The rest is read, too: a full pipe would stop the program.
            let _ = stderr.by_ref().take(COMPLAINT_MAX_BYTES).read_to_end(&mut kept);
            let _ = io::copy(&mut stderr, &mut io::sink());
            String::from_utf8_lossy(&kept).split_whitespace().collect::<Vec<_>>().join(" ")
        }))
    }

    pub(super) fn read(self) -> String {
        self.0.join().unwrap_or_default()
    }
}

/// The first line that a program prints of its version.
pub(super) fn version(name: &str) -> String {
    let output = Command::new(program(name)).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_no_argument() {
        let url = "postgres://me:se%2Fcret@host:5433/db?sslmode=require&statement-cache-capacity=3";
        let command = on_database("pg_dump", url).unwrap();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        assert_eq!(arguments, ["--dbname", "postgres://me@host:5433/db?sslmode=require", "--no-password"]);
        let password = command.get_envs().find(|(name, _)| *name == "PGPASSWORD").unwrap().1.unwrap();
        assert_eq!(password, "se/cret");
    }
}
