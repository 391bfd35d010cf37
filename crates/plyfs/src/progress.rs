//! Showing transfers: bars with bytes, rate and time left on a terminal, plain lines elsewhere.
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use plyfs_image::{Meter, Progress, Quiet};

use crate::output;

/// What suits the place where stderr goes.
pub(crate) fn shown(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars(MultiProgress::new()))
    } else {
        Box::new(Lines)
    }
}

struct Bars(MultiProgress);
struct Bar(ProgressBar);
struct Lines;
struct Line {
    label: String,
    bytes: u64,
    finished: bool,
}

impl Progress for Bars {
    fn begin(&self, label: &str, total: Option<u64>) -> Box<dyn Meter> {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{prefix:14} {wide_bar} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>5} {msg}",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{prefix:14} {spinner} {bytes:>10} {bytes_per_sec:>12} {msg}",
            ),
        };
        let bar = self.0.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Box::new(Bar(bar))
    }
}

impl Meter for Bar {
    fn advance(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn finish(&mut self, how: &str) {
        self.0.finish_with_message(how.to_owned());
    }
}

impl Progress for Lines {
    fn begin(&self, label: &str, _total: Option<u64>) -> Box<dyn Meter> {
        Box::new(Line {
            label: label.to_owned(),
            bytes: 0,
            finished: false,
        })
    }
}

impl Meter for Line {
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn finish(&mut self, how: &str) {
        if !std::mem::replace(&mut self.finished, true) {
            let size = crate::report::bytes(self.bytes);
            output::note(format_args!("{}: {size}, {how}", self.label));
        }
    }
}
