//! Processes that end with whoever started them, even if that one is killed.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// Ends the process `$1` when its standard input ends.
const SCRIPT: &str = "read -r _; kill -9 $1 2>/dev/null";

/// Ends a process that we started when this process ends, however that happens. Drop it before the process is waited
/// for: it must not end another one that gets the number.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches over the process with this id.
    pub fn over(pid: u32) -> Self {
        let mut command = Command::new("sh");
        // Ctrl-C is for whoever runs the tests, who then ends this as well.
        command.args(["-c", SCRIPT, "watchdog", &pid.to_string()]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("sh starts"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
