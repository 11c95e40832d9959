//! What Linux tells about a running process: CPU time and peak memory.

use crate::Result;
use std::fs;
use std::time::Duration;

/// Length of a clock tick in `/proc/<pid>/stat`: `USER_HZ` is 100 on every architecture this runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of process `pid` since its start, user and system, all threads, those that have ended included.
///
/// # Errors
/// When there is no such process, or its `stat` is not what Linux documents.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse_cpu_time(&stat).ok_or_else(|| format!("{path}: no utime and stime in '{stat}'").into())
}

/// Peak resident memory of process `pid` in KiB; `None` of one that has ended and was not waited for: its memory is
/// gone while its CPU time is still told.
///
/// # Errors
/// When there is no such process.
pub fn peak_rss_kib(pid: u32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(parse_peak_rss(&status))
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses and may contain spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    TICK.checked_mul(user.checked_add(system)?)
}

fn parse_peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "42 (a ) (b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn peak_memory_is_read_from_its_line() {
        assert_eq!(parse_peak_rss("VmPeak:\t  20 kB\nVmHWM:\t  1234 kB\n"), Some(1234));
        assert_eq!(parse_peak_rss("VmPeak:\t  20 kB\n"), None);
    }

    #[test]
    fn this_process_has_both() {
        let pid = std::process::id();
        assert!(cpu_time(pid).is_ok());
        assert!(peak_rss_kib(pid).unwrap() > Some(0));
    }
}
