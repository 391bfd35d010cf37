//! A report as one page of HTML with plots; it loads nothing from anywhere.
use std::fmt::Write;

use crate::markdown::{noise, seconds, sizes};
use crate::report::{Cell, NOISY, Report};
use crate::subject::REFERENCE;

/// Colours of the subjects, in their order; readable on white and by the colour-blind.
const COLOURS: [&str; 8] = [
    "#999999", "#000000", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9",
];
/// Geometry of a plot in pixels.
const LABEL: f64 = 150.0;
const WIDTH: f64 = 640.0;
const BAR: f64 = 16.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;\
    padding:0 1em;color:#222}h2{margin:1.6em 0 .2em;font-size:1.1em}p{margin:.3em 0}\
    .about{color:#666}svg text{font:12px system-ui,sans-serif}.noisy{opacity:.55}\
    pre{white-space:pre-wrap}td,th{padding:.1em .8em .1em 0;text-align:left}";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut out = String::new();
    add(
        &mut out,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>plyfs bench {date}</title><style>{STYLE}</style></head><body>\
             <h1>plyfs beside kernel overlayfs</h1><p>{date}, commit {commit}. Linux {kernel}, \
             {count} x {cpu}, {memory} MiB, layers on {place}; overlayfs {overlay}; {rounds} \
             rounds, load {load}.</p><p>{sizes}</p><p>Bars are medians of elapsed time; the \
             number behind is the ratio to kernel overlayfs, in brackets that of processor time \
             of program and daemon together. Lower is better. Pale bars spread over more than \
             {percent:.0} % of the median.</p>",
            date = escape(&machine.date),
            commit = escape(&machine.commit),
            kernel = escape(&machine.kernel),
            count = machine.processors,
            cpu = escape(&machine.processor),
            memory = machine.memory,
            place = escape(&machine.filesystem),
            overlay = escape(&machine.overlay),
            rounds = report.rounds,
            load = escape(&machine.load),
            sizes = escape(&sizes(report)),
            percent = NOISY * 100.0,
        ),
    );
    legend(&mut out, report);
    for (workload, about) in &report.workloads {
        add(
            &mut out,
            format_args!(
                "<h2>{}</h2><p class=\"about\">{}</p>",
                escape(workload),
                escape(about)
            ),
        );
        plot(&mut out, report, workload);
    }
    add(
        &mut out,
        format_args!("<p>{}</p></body></html>\n", escape(noise(report).trim())),
    );
    out
}

fn legend(out: &mut String, report: &Report) {
    out.push_str("<table>");
    for (i, (name, version)) in report.subjects.iter().enumerate() {
        add(
            out,
            format_args!(
                "<tr><td style=\"color:{}\">&#9632; {}</td><td>{}</td></tr>",
                colour(i),
                escape(name),
                escape(version)
            ),
        );
    }
    out.push_str("</table>");
}

/// One bar for each subject.
fn plot(out: &mut String, report: &Report, workload: &str) {
    let cells: Vec<(usize, &Cell)> = report
        .subjects
        .iter()
        .enumerate()
        .filter_map(|(i, (subject, _))| Some((i, report.cell(workload, subject)?)))
        .collect();
    let longest = cells
        .iter()
        .filter_map(|(_, cell)| cell.wall())
        .fold(0.0, |longest: f64, wall| longest.max(wall.median));
    let height = BAR.mul_add(1.4 * cells.len() as f64, 4.0);
    add(
        out,
        format_args!(
            "<svg width=\"{:.0}\" height=\"{height:.0}\" role=\"img\">",
            LABEL + WIDTH
        ),
    );
    for (row, (i, cell)) in cells.iter().enumerate() {
        bar(
            out,
            report,
            cell,
            colour(*i),
            row as f64 * BAR * 1.4,
            longest,
        );
    }
    out.push_str("</svg>");
}

fn bar(out: &mut String, report: &Report, cell: &Cell, colour: &str, y: f64, longest: f64) {
    let baseline = y + BAR * 0.8;
    add(
        out,
        format_args!(
            "<text x=\"0\" y=\"{baseline:.1}\">{}</text>",
            escape(&cell.subject)
        ),
    );
    let Some(wall) = cell.wall() else {
        let why = cell.failure.as_deref().unwrap_or("has no answer");
        add(
            out,
            format_args!(
                "<text x=\"{LABEL}\" y=\"{baseline:.1}\" fill=\"#666\">{}</text>",
                escape(why)
            ),
        );
        return;
    };
    // Room for the text behind the longest bar.
    let width = (WIDTH - 190.0) * wall.median / longest.max(f64::MIN_POSITIVE);
    let class = if wall.spread > NOISY { "noisy" } else { "" };
    let mut text = seconds(wall.median);
    if let Some((wall, cpu)) = report.ratio(cell).filter(|_| cell.subject != REFERENCE) {
        add(&mut text, format_args!("  {wall:.2} ({cpu:.2})"));
    }
    add(
        out,
        format_args!(
            "<rect class=\"{class}\" x=\"{LABEL}\" y=\"{y:.1}\" width=\"{:.1}\" \
             height=\"{BAR}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{baseline:.1}\">{}</text>",
            width.max(1.0),
            LABEL + width.max(1.0) + 6.0,
            escape(&text)
        ),
    );
}

fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Sizes;
    use crate::machine::Machine;
    use crate::sample::Sample;

    fn cell(subject: &str, wall: f64, failure: Option<&str>) -> Cell {
        let sample = Sample {
            wall,
            client_cpu: wall / 2.0,
            daemon_cpu: 0.0,
            daemon_memory: 0,
        };
        Cell {
            workload: "find-warm".to_owned(),
            subject: subject.to_owned(),
            samples: vec![sample; 3],
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn the_page_shows_every_cell_and_loads_nothing() {
        let report = Report {
            machine: Machine::here("a disk".to_owned()),
            sizes: Sizes::QUICK,
            rounds: 3,
            subjects: ["overlayfs", "plyfs", "other"]
                .map(|name| (name.to_owned(), "<1>".to_owned()))
                .to_vec(),
            workloads: vec![("find-warm".to_owned(), "find & list".to_owned())],
            cells: vec![
                cell("overlayfs", 0.2, None),
                cell("plyfs", 0.1, None),
                cell("other", 0.1, Some("does not <mount>")),
            ],
        };
        let page = page(&report);
        assert!(page.contains("100 ms  0.50 (0.50)"), "{page}");
        assert!(page.contains("200 ms<"), "{page}");
        assert!(page.contains("does not &lt;mount&gt;"), "{page}");
        assert!(page.contains("find &amp; list"), "{page}");
        assert_eq!(page.matches("<rect").count(), 2);
        for outside in ["http:", "https:", "src=", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
