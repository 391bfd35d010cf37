//! What this process uses of the machine: memory, descriptors, threads, processor time.
use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What a process uses; what /proc does not tell is None.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Largest number of open descriptors.
    pub descriptor_limit: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Processor time in user mode.
    pub user_time: Duration,
    /// Processor time in the kernel.
    pub system_time: Duration,
}

/// What this process uses now.
#[must_use]
pub fn of_this_process() -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| number_after(&status, name);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    // The descriptor that lists the directory is among those it lists.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count());
    let (user_time, system_time) = times();
    Usage {
        resident: field("VmRSS:").map(|kib| kib * 1024),
        descriptors: descriptors.map(|n| n.saturating_sub(1) as u64),
        descriptor_limit: number_after(&limits, "Max open files"),
        threads: field("Threads:"),
        user_time,
        system_time,
    }
}

/// The first number in the line that starts with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn times() -> (Duration, Duration) {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: usage is valid for writes of one rusage; all zeroes is a valid one should it fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| {
        let micros = t.tv_sec.unsigned_abs() * 1_000_000 + t.tv_usec.unsigned_abs();
        Duration::from_micros(micros)
    };
    (time(usage.ru_utime), time(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let kept = fs::File::open("/proc/self/status").unwrap();
        let usage = of_this_process();
        assert!(
            usage.resident > Some(4096) && usage.threads >= Some(1),
            "{usage:?}"
        );
        assert!(usage.descriptors >= Some(4), "{usage:?}");
        assert!(usage.descriptor_limit >= usage.descriptors, "{usage:?}");
        drop(kept);
    }

    #[test]
    fn numbers_stand_behind_their_name() {
        let text = "VmPeak:\t  9 kB\nVmRSS:\t  7 kB\nMax open files   64   128 files\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(7));
        assert_eq!(number_after(text, "Max open files"), Some(64));
        assert_eq!(number_after(text, "Threads:"), None);
    }
}
