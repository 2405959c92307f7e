//! What this process itself uses of the machine, for the metrics. Linux says so in files; elsewhere the gauges are absent.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use queue_core::telemetry;

/// Time between two looks: shorter than anybody scrapes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Where the control groups of version 2 are mounted, and the one of version 1 that limits memory.
const GROUPS: &str = "/sys/fs/cgroup";
const GROUP_OF_MEMORY: &str = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
const KIB: u64 = 1_024;

/// Tells memory until it is dropped.
pub(super) async fn keep() {
    loop {
        if let Some(bytes) = line_bytes(&read("/proc/self/status"), "VmRSS:") {
            metrics::gauge!(telemetry::PROCESS_MEMORY).set(bytes as f64);
        }
        if let Some(bytes) = limit() {
            metrics::gauge!(telemetry::PROCESS_MEMORY_LIMIT).set(bytes as f64);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The tightest of the machine's memory and of the limits of this process' control groups.
fn limit() -> Option<u64> {
    let machine = line_bytes(&read("/proc/meminfo"), "MemTotal:");
    let groups = groups_of(&read("/proc/self/cgroup"));
    let limits = groups.iter().map(|group| read(group.join("memory.max"))).chain([read(GROUP_OF_MEMORY)]);
    // `max`: none.
    limits.filter_map(|text| text.trim().parse().ok()).chain(machine).min()
}

/// The value of a line such as `VmRSS:  1234 kB`, in bytes.
pub(crate) fn line_bytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().trim_end_matches("kB").trim_end().parse::<u64>().ok().map(|kib| kib * KIB)
}

/// The control group of version 2 that `/proc/self/cgroup` names, and those above it: each may limit what is below.
fn groups_of(said: &str) -> Vec<PathBuf> {
    let own = said.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new(GROUPS)
        .join(own)
        .ancestors()
        .take_while(|group| group.starts_with(GROUPS))
        .map(Path::to_path_buf)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(line_bytes("VmPeak:\t  10 kB\nVmRSS:\t   6124 kB\n", "VmRSS:"), Some(6_124 * 1_024));
        assert_eq!(line_bytes("VmPeak:\t  10 kB\n", "VmRSS:"), None);
        let groups = groups_of("1:name=systemd:/x\n0::/system.slice/longshore.service\n");
        let shown: Vec<_> = groups.iter().map(|group| group.to_string_lossy().into_owned()).collect();
        assert_eq!(
            shown,
            ["/sys/fs/cgroup/system.slice/longshore.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]
        );
        assert_eq!(groups_of(""), [PathBuf::from(GROUPS)]);
    }

    #[test]
    fn a_process_on_linux_has_memory_and_a_limit() {
        if cfg!(target_os = "linux") {
            let used = line_bytes(&read("/proc/self/status"), "VmRSS:").unwrap();
            assert!(limit().unwrap() > used);
        }
    }
}
