//! Help of every verb, compared with `help.txt` beside this file, so that a change of the command
//! line shows in its diff.
//!
//! `UPDATE_HELP=1 cargo test --release --test all help` writes the file anew.

use std::path::Path;
use std::process::Command;

/// Output of `gen VERB… --help`, wrapped at 100 columns.
fn help(verbs: &[String]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gen"));
    let out = command.args(verbs).arg("--help").env("COLUMNS", "100").output().unwrap();
    assert!(out.status.success(), "gen {} --help", verbs.join(" "));
    String::from_utf8(out.stdout).unwrap()
}

/// Names under `Commands:`, but for `help`.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names = list.filter(|l| !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next());
    names.filter(|name| *name != "help")
}

/// The help of `verbs` and of all below them, each under a line with the command.
fn all(verbs: &[String]) -> String {
    let help = help(verbs);
    let title: String = verbs.iter().map(|verb| format!(" {verb}")).collect();
    let below = commands(&help).map(|name| all(&[verbs, &[name.to_owned()]].concat()));
    format!("$ gen{title} --help\n\n{help}\n") + &below.collect::<String>()
}

#[test]
fn help_is_that_of_the_snapshot() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    let found = all(&[]);
    if std::env::var_os("UPDATE_HELP").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let line = expected.lines().zip(found.lines()).position(|(expected, found)| expected != found);
    let shown = |text: &str| text.lines().nth(line.unwrap_or(0)).unwrap_or("").to_owned();
    assert!(
        expected == found,
        "line {} of tests/help.txt is\n  {}\nand would be\n  {}\nIf that is meant, set UPDATE_HELP=1 and look at the diff",
        line.unwrap_or(0) + 1,
        shown(&expected),
        shown(&found)
    );
}
