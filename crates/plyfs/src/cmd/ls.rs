//! `plyfs ls`: the mounts of this machine, also those whose daemon died.
use plyfs_mount::control::Unanswered;
use plyfs_mount::list::{self, Found};
use serde::Serialize;

use crate::output;
use crate::report::{bytes, duration};

/// `plyfs ls`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "STATE is ok, dead (the daemon has ended: plyfs umount --lazy takes the \
    mount away),\nsilent (it lives and does not answer), private (somebody else's) or unknown.\n\
    Mounts of other mount namespaces (containers) are not seen: run plyfs there."
)]
pub(crate) struct Args {
    /// Print a JSON array of objects
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Row {
    mountpoint: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(rename = "type")]
    fstype: String,
    device: String,
    owner: Option<u32>,
    pid: Option<u32>,
    uptime: Option<f64>,
    lowers: Option<usize>,
    upper: Option<String>,
    read_only: Option<bool>,
    inodes: Option<u64>,
    requests: Option<u64>,
    rss: Option<u64>,
}

/// Prints them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let rows: Vec<Row> = list::ours()?.iter().map(row).collect();
    if args.json {
        return output::line(serde_json::to_string_pretty(&rows)?);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = vec![
        [
            "MOUNTPOINT",
            "STATE",
            "PID",
            "UPTIME",
            "LOWERS",
            "UPPER",
            "INODES",
            "REQUESTS",
            "RSS",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    table.extend(rows.iter().map(Row::cells));
    output::table(&table)
}

fn row(found: &Found) -> Row {
    let answer = found.ask();
    let told = answer.as_ref().ok();
    let known = told.map(|s| &s.mount).or(found.state.as_ref());
    Row {
        mountpoint: output::escaped_path(&found.entry.target),
        state: match &answer {
            Ok(_) => "ok",
            Err(Unanswered::Dead) => "dead",
            Err(Unanswered::NotAllowed) => "private",
            Err(Unanswered::Silent(_) | Unanswered::Refused(_)) => "silent",
            Err(Unanswered::NoSocket) => "unknown",
        },
        reason: answer.as_ref().err().map(ToString::to_string),
        fstype: found.entry.fstype.clone(),
        device: format!("{}:{}", found.entry.dev.0, found.entry.dev.1),
        owner: found.owner,
        pid: known.map(|m| m.pid),
        uptime: told.map(|s| s.uptime),
        lowers: known.map(|m| m.lowers.len()),
        upper: known
            .and_then(|m| m.upper.as_ref())
            .map(|p| output::escaped_path(&p.to_path())),
        read_only: told.map(|s| s.read_only),
        inodes: told.map(|s| s.inodes),
        requests: told.map(|s| s.requests.iter().map(|r| r.count).sum()),
        rss: told.and_then(|s| s.process.rss),
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.mountpoint.clone(),
            self.state.to_owned(),
            or_dash(self.pid.map(|n| n.to_string())),
            or_dash(self.uptime.map(duration)),
            or_dash(self.lowers.map(|n| n.to_string())),
            or_dash(self.upper.clone()),
            or_dash(self.inodes.map(|n| n.to_string())),
            or_dash(self.requests.map(|n| n.to_string())),
            or_dash(self.rss.map(bytes)),
        ]
    }
}
