//! The status of mounts in the text format of Prometheus.
use plyfs_mount::control::Status;

use crate::output::escaped_path;

/// Families of samples: name, type, help, and the samples of one mount.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Status) -> Vec<Sample>,
);
/// Labels besides the mountpoint, and the value; the name may have a suffix (`_bucket`).
type Sample = (&'static str, Vec<(&'static str, String)>, f64);

const FAMILIES: [Family; 16] = [
    (
        "plyfs_info",
        "gauge",
        "Version of the serving plyfs.",
        |s| vec![("", vec![("version", s.plyfs.clone())], 1.0)],
    ),
    (
        "plyfs_uptime_seconds",
        "gauge",
        "Time since the mount was made.",
        |s| one(s.uptime),
    ),
    (
        "plyfs_lower_layers",
        "gauge",
        "Lower layers of the mount.",
        |s| one(s.mount.lowers.len() as f64),
    ),
    (
        "plyfs_read_only",
        "gauge",
        "1 where nothing can be changed.",
        |s| one(f64::from(u8::from(s.read_only))),
    ),
    ("plyfs_inodes", "gauge", "Inodes the daemon knows.", |s| {
        one(s.inodes as f64)
    }),
    (
        "plyfs_request_seconds",
        "histogram",
        "Time the daemon took for requests.",
        requests,
    ),
    (
        "plyfs_cache_hits_total",
        "counter",
        "What was asked of a cache and there.",
        |s| caches(s, |c| c.hits),
    ),
    (
        "plyfs_cache_misses_total",
        "counter",
        "What was asked of a cache and not there.",
        |s| caches(s, |c| c.misses),
    ),
    ("plyfs_cache_entries", "gauge", "What a cache holds.", |s| {
        caches(s, |c| c.entries)
    }),
    ("plyfs_cache_bytes", "gauge", "Bytes a cache holds.", |s| {
        let known = s.caches.iter().filter_map(|c| Some((c, c.bytes?)));
        known
            .map(|(c, n)| ("", vec![("cache", c.name.clone())], n as f64))
            .collect()
    }),
    (
        "plyfs_copy_up_files_total",
        "counter",
        "Files whose data was copied up.",
        |s| one(s.copy_ups.files as f64),
    ),
    (
        "plyfs_copy_up_bytes_total",
        "counter",
        "Bytes of data that were copied up.",
        |s| one(s.copy_ups.bytes as f64),
    ),
    (
        "plyfs_copy_ups_in_progress",
        "gauge",
        "Copies of data going on.",
        |s| one(s.copy_ups.in_progress.len() as f64),
    ),
    (
        "plyfs_resident_bytes",
        "gauge",
        "Resident memory of the daemon.",
        |s| known(s.process.rss),
    ),
    (
        "plyfs_open_descriptors",
        "gauge",
        "Descriptors the daemon has open.",
        |s| known(s.process.fds),
    ),
    (
        "plyfs_cpu_seconds_total",
        "counter",
        "Processor time of the daemon.",
        |s| {
            let of = |mode: &str, t| ("", vec![("mode", mode.to_owned())], t);
            vec![
                of("user", s.process.cpu_user),
                of("system", s.process.cpu_system),
            ]
        },
    ),
];

/// All mounts; a family stands together, as the format demands.
pub(crate) fn text(all: &[&Status]) -> String {
    let mut out = String::new();
    for (name, kind, help, samples) in &FAMILIES {
        let of_all: Vec<(String, Sample)> = all
            .iter()
            .flat_map(|s| {
                let at = label(&escaped_path(&s.mount.mountpoint.to_path()));
                samples(s)
                    .into_iter()
                    .map(move |sample| (at.clone(), sample))
            })
            .collect();
        if of_all.is_empty() {
            continue;
        }
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (at, (suffix, labels, value)) in of_all {
            out.push_str(&format!("{name}{suffix}{{mountpoint=\"{at}\""));
            for (key, text) in labels {
                out.push_str(&format!(",{key}=\"{}\"", label(&text)));
            }
            out.push_str(&format!("}} {value}\n"));
        }
    }
    out
}

fn one(value: f64) -> Vec<Sample> {
    vec![("", Vec::new(), value)]
}

fn known(value: Option<u64>) -> Vec<Sample> {
    value.map(|n| n as f64).into_iter().flat_map(one).collect()
}

fn caches(s: &Status, of: fn(&plyfs_mount::control::status::Cache) -> u64) -> Vec<Sample> {
    let sample = |c| (of(c) as f64, c);
    let all = s.caches.iter().map(sample);
    all.map(|(n, c)| ("", vec![("cache", c.name.clone())], n))
        .collect()
}

fn requests(s: &Status) -> Vec<Sample> {
    let mut all = Vec::new();
    for r in &s.requests {
        let kind = || ("kind", r.kind.clone());
        let mut sum = 0;
        let last = r.buckets.len().saturating_sub(1);
        // The last bucket has no upper bound of its own; those before the first and after the
        // last request are left out, as they say nothing.
        let used: Vec<usize> = (0..last).filter(|i| r.buckets[*i] > 0).collect();
        if let (Some(first), Some(end)) = (used.first(), used.last()) {
            for i in *first..=*end {
                sum += r.buckets[i];
                let le = (1u64 << i) as f64 / 1e9;
                all.push(("_bucket", vec![kind(), ("le", le.to_string())], sum as f64));
            }
        }
        let inf = ("le", "+Inf".to_owned());
        all.push(("_bucket", vec![kind(), inf], r.count as f64));
        all.push(("_sum", vec![kind()], r.total_ns as f64 / 1e9));
        all.push(("_count", vec![kind()], r.count as f64));
    }
    all
}

/// A label's value: backslash, quotation mark and newline are escaped.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
