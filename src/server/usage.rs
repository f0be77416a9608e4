//! What this process has taken of the machine.

use rustix::time::{ClockId, clock_gettime};
use std::{fs, time::Duration};

/// Processor time of all threads of this process since it started.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Resident memory of this process in bytes; `None` where there is no `/proc`.
pub fn resident_bytes() -> Option<u64> {
    parse_resident(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS:     5432 kB` among other lines.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_goes_on_and_memory_is_held() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_time() > before);
        assert!(resident_bytes().is_none_or(|bytes| bytes > 100_000));
        assert_eq!(parse_resident("VmPeak:\t 9 kB\nVmRSS:\t    5432 kB\n"), Some(5432 * 1024));
        assert_eq!(parse_resident("VmRSS:\t many kB\n"), None);
    }
}
