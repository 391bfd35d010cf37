//! The status of a mount for people.
use plyfs_mount::control::Status;
use plyfs_mount::control::in_force::Why;
use plyfs_mount::control::status::{Cache, Requests};

use super::{bytes, duration, nanos};
use crate::output::{aligned, escaped_path};

/// Most lower layers that are listed; `--json` has all.
const MAX_LOWERS: usize = 12;

/// All about a mount; `before` is what it said at the last look, for the rates.
pub(crate) fn status(now: &Status, before: Option<&Status>) -> String {
    let mut out = String::new();
    head(&mut out, now);
    section(&mut out, "options", &options(now));
    section(&mut out, "requests", &requests(now, before));
    section(
        &mut out,
        "caches",
        &now.caches.iter().map(cache).collect::<Vec<_>>(),
    );
    copy_ups(&mut out, now);
    opens(&mut out, now);
    process(&mut out, now);
    out
}

fn say(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.push_str(&format!("{line}\n"));
}

fn section(out: &mut String, title: &str, rows: &[Vec<String>]) {
    if !rows.is_empty() {
        say(out, format_args!("{title}"));
        for line in aligned(rows).lines() {
            say(out, format_args!("  {line}"));
        }
    }
}

fn head(out: &mut String, s: &Status) {
    let access = if s.read_only { "read-only" } else { "writable" };
    let mountpoint = escaped_path(&s.mount.mountpoint.to_path());
    say(
        out,
        format_args!(
            "{mountpoint}  {access}, plyfs {}, process {}, up {}",
            s.plyfs,
            s.mount.pid,
            duration(s.uptime)
        ),
    );
    let next = match (s.replaceable, s.holders) {
        (true, 1) => {
            "another daemon takes over when this one dies (one process is left to make it)"
        }
        (true, _) => "another daemon takes over when this one dies",
        (false, _) => "the mount ends when its daemon dies",
    };
    let before = match s.mount.restarts {
        0 => String::new(),
        1 => "; it has replaced one".to_owned(),
        n => format!("; it has replaced {n} before it"),
    };
    say(out, format_args!("  {next}{before}"));
    if let Some(binary) = &s.binary {
        let upgrades = match s.upgrades {
            0 => String::new(),
            1 => "; upgraded once".to_owned(),
            n => format!("; upgraded {n} times"),
        };
        let path = escaped_path(&binary.to_path());
        say(out, format_args!("  program {path}{upgrades}"));
    }
    if let Some(why) = &s.upgrade_failed {
        say(out, format_args!("  the last upgrade failed: {why}"));
    }
    let mut rows = Vec::new();
    let mut row =
        |what: &str, path: &std::path::Path| rows.push(vec![what.to_owned(), escaped_path(path)]);
    if let Some(upper) = &s.mount.upper {
        row("upper", &upper.to_path());
    }
    if let Some(work) = &s.mount.work {
        row("work", &work.to_path());
    }
    s.mount
        .lowers
        .iter()
        .take(MAX_LOWERS)
        .for_each(|l| row("lower", &l.to_path()));
    s.data_only.iter().for_each(|l| row("data", &l.to_path()));
    section(out, "layers, topmost first", &rows);
    let more = s.mount.lowers.len().saturating_sub(MAX_LOWERS);
    if more > 0 {
        say(out, format_args!("  and {more} more lowers below"));
    }
}

fn options(s: &Status) -> Vec<Vec<String>> {
    let row = |o: &plyfs_mount::control::in_force::InForce| {
        let why = match o.why {
            Why::Given => "given",
            Why::Default => "default",
            Why::Probed => "probed",
        };
        vec![
            o.name.clone(),
            o.value.clone(),
            why.to_owned(),
            o.note.clone().unwrap_or_default(),
        ]
    };
    s.options.iter().map(row).collect()
}

fn requests(now: &Status, before: Option<&Status>) -> Vec<Vec<String>> {
    if now.requests.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![
        [
            "kind", "count", "per s", "mean", "p50 <", "p90 <", "p99 <", "max <",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut sorted: Vec<&Requests> = now.requests.iter().collect();
    sorted.sort_by_key(|r| std::cmp::Reverse(r.count));
    for r in sorted {
        let old = before.and_then(|b| b.requests.iter().find(|o| o.kind == r.kind));
        let since = before.map_or(0.0, |b| b.uptime);
        let more = r.count.saturating_sub(old.map_or(0, |o| o.count));
        let rate = more as f64 / (now.uptime - since).max(0.001);
        rows.push(vec![
            r.kind.clone(),
            r.count.to_string(),
            format!("{rate:.1}"),
            nanos(r.total_ns / r.count.max(1)),
            nanos(r.p50_ns),
            nanos(r.p90_ns),
            nanos(r.p99_ns),
            nanos(r.max_ns),
        ]);
    }
    rows
}

fn cache(c: &Cache) -> Vec<String> {
    let asked = c.hits + c.misses;
    let share = match asked {
        0 => "never asked".to_owned(),
        _ => format!(
            "{:.1} % of {asked} hit",
            c.hits as f64 * 100.0 / asked as f64
        ),
    };
    let size = match c.bytes {
        Some(n) => format!(
            "{} entries, {} of {}",
            c.entries,
            bytes(n),
            bytes(c.capacity)
        ),
        None => format!("{} of {}", c.entries, c.capacity),
    };
    vec![c.name.clone(), size, share]
}

fn copy_ups(out: &mut String, s: &Status) {
    let c = &s.copy_ups;
    say(
        out,
        format_args!("copy-ups  {} files, {}", c.files, bytes(c.bytes)),
    );
    for copy in &c.in_progress {
        let path = copy.path.as_ref().map(|p| escaped_path(&p.to_path()));
        say(
            out,
            format_args!(
                "  {} of {} in {}: {}",
                bytes(copy.done),
                bytes(copy.total),
                duration(copy.seconds),
                path.as_deref().unwrap_or("(no name)")
            ),
        );
    }
}

fn opens(out: &mut String, s: &Status) {
    let Some(o) = s.opens else { return };
    say(
        out,
        format_args!(
            "opens     {}: {} files passed through, {} served",
            o.opens, o.passed, o.served
        ),
    );
}

fn process(out: &mut String, s: &Status) {
    let p = &s.process;
    let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    say(
        out,
        format_args!(
            "daemon    {} inodes, {} references; {} resident, {} of {} descriptors, {} threads, \
             CPU {:.1} s user, {:.1} s system",
            s.inodes,
            s.references,
            p.rss.map_or_else(|| "?".to_owned(), bytes),
            number(p.fds),
            number(p.fd_limit),
            number(p.threads),
            p.cpu_user,
            p.cpu_system
        ),
    );
}
