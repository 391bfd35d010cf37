//! fsx as a command; see `plyfs_tests::fsx`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match plyfs_tests::fsx::run(&plyfs_tests::fsx::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fsx: {error:#}");
            ExitCode::from(1)
        }
    }
}
