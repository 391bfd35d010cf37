//! A report as the tables of RESULTS.md.
use std::fmt::Write;

use crate::report::{Cell, NOISY, Report};
use crate::subject::REFERENCE;

/// The table: one row for each workload, two columns for each subject.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = String::from("| workload |");
    for (name, _) in &report.subjects {
        add(&mut out, format_args!(" {name} |"));
        if name != REFERENCE {
            out.push_str(" ratio (cpu) |");
        }
    }
    out.push_str("\n|---|");
    for (name, _) in &report.subjects {
        out.push_str(if name == REFERENCE {
            "--:|"
        } else {
            "--:|--:|"
        });
    }
    out.push('\n');
    for (workload, _) in &report.workloads {
        add(&mut out, format_args!("| {workload} |"));
        for (subject, _) in &report.subjects {
            let cell = report.cell(workload, subject);
            add(&mut out, format_args!(" {} |", time(cell)));
            if subject != REFERENCE {
                add(&mut out, format_args!(" {} |", ratio(report, cell)));
            }
        }
        out.push('\n');
    }
    out
}

/// A whole section of RESULTS.md.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let machine = &report.machine;
    let mut out = String::new();
    add(
        &mut out,
        format_args!("## {}, commit {}\n\n", machine.date, machine.commit),
    );
    add(
        &mut out,
        format_args!(
            "Linux {}, {} x {}, {} MiB, layers on {}; overlayfs {}; {} rounds, load {}.\n",
            machine.kernel,
            machine.processors,
            machine.processor,
            machine.memory,
            machine.filesystem,
            machine.overlay,
            report.rounds,
            machine.load,
        ),
    );
    add(&mut out, format_args!("{}\n\n", sizes(report)));
    for (name, version) in &report.subjects {
        add(&mut out, format_args!("- {name}: {version}\n"));
    }
    add(&mut out, format_args!("\n{}", table(report)));
    out.push_str(&memory(report));
    for cell in &report.cells {
        if let Some(failure) = &cell.failure {
            add(
                &mut out,
                format_args!("\n- {} on {}: {failure}", cell.workload, cell.subject),
            );
        }
    }
    out.push_str(&noise(report));
    out
}

pub(crate) fn sizes(report: &Report) -> String {
    let sizes = &report.sizes;
    format!(
        "{} entries in the tree, {} small files, {} MiB in the large file, {} names in the crowd, \
         about {} files in the archive.",
        sizes.tree,
        sizes.small,
        sizes.big >> 20,
        sizes.crowd,
        sizes.archive
    )
}

/// What daemons hold after the work that makes inodes known and does nothing else.
fn memory(report: &Report) -> String {
    let mut out = String::new();
    for cell in &report.cells {
        if let Some(memory) = cell.memory().filter(|_| cell.workload.starts_with("find")) {
            let mib = memory.median / f64::from(1 << 20);
            add(
                &mut out,
                format_args!("| {} | {} | {mib:.1} |\n", cell.workload, cell.subject),
            );
        }
    }
    if !out.is_empty() {
        out.insert_str(
            0,
            "\n| after | memory of the daemon of | MiB |\n|---|---|--:|\n",
        );
    }
    out
}

fn time(cell: Option<&Cell>) -> String {
    match cell {
        Some(cell) if cell.failure.is_some() => "failed".to_owned(),
        Some(cell) => cell.wall().map_or_else(
            || "–".to_owned(),
            |summary| {
                let mark = if summary.spread > NOISY { " ~" } else { "" };
                format!("{}{mark}", seconds(summary.median))
            },
        ),
        None => "–".to_owned(),
    }
}

fn ratio(report: &Report, cell: Option<&Cell>) -> String {
    let ratio = cell.and_then(|cell| report.ratio(cell));
    ratio.map_or_else(
        || "–".to_owned(),
        |(wall, cpu)| format!("{wall:.2} ({cpu:.2})"),
    )
}

/// Three digits that count.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v >= 10.0 => format!("{v:.1} s"),
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 0.1 => format!("{:.0} ms", v * 1e3),
        v if v >= 0.01 => format!("{:.1} ms", v * 1e3),
        v => format!("{:.2} ms", v * 1e3),
    }
}

pub(crate) fn noise(report: &Report) -> String {
    if report.rounds < 3 {
        return "\nToo few rounds to tell how noisy the machine was.\n".to_owned();
    }
    let spreads = report.cells.iter().filter_map(Cell::wall);
    let (noisy, all) = spreads.fold((0, 0), |(noisy, all), summary| {
        (noisy + usize::from(summary.spread > NOISY), all + 1)
    });
    let percent = NOISY * 100.0;
    let mut text = format!(
        "\n{noisy} of {all} cells (marked ~) spread over more than {percent:.0} % of their median \
         between the quartiles"
    );
    text.push_str(if noisy * 4 > all {
        ": the machine was too noisy for small differences; believe the processor time.\n"
    } else {
        ".\n"
    });
    text
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_three_digits() {
        let cases = [
            (12.34, "12.3 s"),
            (1.234, "1.23 s"),
            (0.1234, "123 ms"),
            (0.01234, "12.3 ms"),
        ];
        for (value, text) in cases {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(seconds(0.001_234), "1.23 ms");
    }
}
