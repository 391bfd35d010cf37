//! The judge as a command; see `plyfs_tests::judge`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match plyfs_tests::judge::run(&plyfs_tests::judge::Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("judge: {error:#}");
            ExitCode::from(2)
        }
    }
}
