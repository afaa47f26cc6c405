//! The launcher, `gen` on the command line: reads the arguments, gives help, and hands over to
//! `gen-torch`, the program proper, in the same folder. Loading libtorch takes a quarter of a
//! second, which help and a mistyped option need not wait for.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::{env, io};

use clap::Parser;

const PROGRAM: &str = "gen-torch";

/// Time that threads of libtorch's OpenMP spin before they sleep, in iterations of their loop: tens
/// of microseconds. The default is a millisecond, during which they keep the kernels' own threads
/// from the processor. OpenMP reads the variable when it is loaded; a value set by the user takes
/// precedence.
const SPIN: (&str, &str) = ("GOMP_SPINCOUNT", "10000");
const POLICY: &str = "OMP_WAIT_POLICY";

fn main() -> ExitCode {
    cli::Cli::parse(); // help, version and usage errors end the program here
    let error = hand_over();
    eprintln!(
        "error: cannot start `{PROGRAM}`, which belongs beside `gen`\n  caused by: {error}\n\n\
         hint: keep both programs in one folder; elsewhere, a symbolic link to `gen` will do"
    );
    ExitCode::from(2)
}

/// Becomes the program proper; returns only where that cannot be started.
fn hand_over() -> io::Error {
    match env::current_exe() {
        Ok(this) => {
            let mut program = Command::new(this.with_file_name(PROGRAM));
            if env::var_os(SPIN.0).is_none() && env::var_os(POLICY).is_none() {
                program.env(SPIN.0, SPIN.1);
            }
            program.arg0("gen").args(env::args_os().skip(1)).exec()
        }
        Err(error) => error,
    }
}
