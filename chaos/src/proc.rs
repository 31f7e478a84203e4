//! What /proc tells of a process: CPU time, memory now and at its peak.
//!
//! Not here: which processes are looked at (`bench`, `open_loop::usage`), what the machine has (`bench::machine`).

use anyhow::Context;
use std::fs;

/// User and system CPU seconds of a process since its start.
pub(crate) fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let ticks = cpu_ticks(&read(pid, "stat")?).with_context(|| format!("read /proc/{pid}/stat"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Makes the peak start again from what is resident now; false where the kernel does not let us, and then it is since the start.
pub(crate) fn reset_peak(pid: u32) -> bool {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

/// Most bytes that were resident.
pub(crate) fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmHWM")
}

/// Bytes that are resident.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmRSS")
}

/// The same with its part of the pages that it shares with others; none where the kernel does not tell.
pub(crate) fn proportional_bytes(pid: u32) -> Option<u64> {
    kib(&field(&read(pid, "smaps_rollup").ok()?, "Pss")?)
}

/// Bytes that the process has read by calls, from files and pipes and whether a disk was asked or not.
pub(crate) fn read_bytes(pid: u32) -> anyhow::Result<u64> {
    let value = field(&read(pid, "io")?, "rchar").with_context(|| format!("/proc/{pid}/io has no rchar"))?;
    Ok(value.parse()?)
}

/// Whether every thread of a process stands still after a SIGSTOP.
pub(crate) fn is_stopped(pid: u32) -> anyhow::Result<bool> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    // A thread that ended meanwhile runs no more either.
    let mut stats = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    Ok(stats.all(|stat| state(&stat) == Some("T")))
}

/// Field 3 of proc_pid_stat(5).
fn state(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().next()
}

/// The value of the first line `name : value`.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} is gone"))
}

/// A line of proc_pid_status(5) that counts kilobytes, in bytes.
fn status_bytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    let value = field(&read(pid, "status")?, name).and_then(|value| kib(&value));
    value.with_context(|| format!("/proc/{pid}/status has no {name}"))
}

fn kib(value: &str) -> Option<u64> {
    let count: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(count << 10)
}

/// utime and stime, fields 14 and 15 of proc_pid_stat(5). The name, field 2, may hold blanks and brackets, so counting begins
/// behind its last bracket with field 3.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::{cpu_ticks, field, kib, state};

    #[test]
    fn ticks_are_read_behind_a_name_with_blanks_and_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 120 34 5 6 20 0 1 0 9 1 1";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(state(stat), Some("S"));
        assert_eq!(state("7 (T) T 1"), Some("T"));
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn kilobytes_are_counted_in_bytes_and_nothing_else_is() {
        assert_eq!(kib("12 kB"), Some(12 << 10));
        assert_eq!(kib("12"), None);
        assert_eq!(kib("x kB"), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: A B\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A B"));
        assert_eq!(field(text, "name"), None);
    }
}
