//! The table of mount options as text for the long help.
use plyfs_mount::options::{Meaning, OPTIONS, Takes};

/// Adds the table of mount options to the long help of `mount`.
pub(crate) fn with_option_list(command: clap::Command) -> clap::Command {
    command.mut_subcommand("mount", |mount| {
        let text = mount
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        mount.after_long_help(format!("{text}\n\n{}", option_list()))
    })
}

/// The mount options by what happens to them.
pub(crate) fn option_list() -> String {
    let mut summaries = String::new();
    let (mut flags, mut granted, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for def in OPTIONS {
        let name = match def.takes {
            Takes::Nothing | Takes::Either => def.name.to_owned(),
            Takes::Value => format!("{}=", def.name),
        };
        match (def.meaning, def.meaning.summary()) {
            (_, Some(summary)) => summaries.push_str(&format!("  {name:<14} {summary}\n")),
            (Meaning::Granted, _) => granted.push(name),
            (Meaning::GrantedIf(values, _), _) => {
                granted.push(format!("{name}{}", values.join("|")));
            }
            (Meaning::NoEffect(_), _) => idle.push(name),
            (_, None) => flags.push(name),
        }
    }
    format!(
        "Mount options:\n{summaries}Flags of any mount:\n{}\nTaken for granted:\n{}\n\
         Without effect (an error for `plyfs mount`, a warning for the mount program):\n{}",
        wrapped(&flags),
        wrapped(&granted),
        wrapped(&idle)
    )
}

fn wrapped(words: &[String]) -> String {
    const WIDTH: usize = 78;
    let mut text = String::new();
    let mut column = 0;
    for word in words {
        if column == 0 || column + word.len() + 1 > WIDTH {
            text.push_str(if column == 0 { "  " } else { "\n  " });
            column = 2;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
    text
}
