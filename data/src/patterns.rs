//! Shards by pattern: braces as in WebDataset's lists (`train-{00000..00005}.tar`), and wildcards.

use std::path::{Path, PathBuf};

use glob::MatchOptions;

/// More names than any set has shards; a pattern with more matches is a mistake.
const MOST_NAMES: usize = 100_000;

/// True if the path has a character that means something in patterns.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '{', '['])
}

/// Files that match a pattern, sorted within each brace alternative. Hidden files (macOS's `._*`)
/// match no wildcard.
pub(crate) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_str().ok_or("a pattern must be UTF-8 text; name the files or their folder")?;
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let mut found = vec![];
    for one in braces(text)? {
        let paths = glob::glob_with(&one, options).map_err(|e| format!("bad pattern: {e}"))?;
        let before = found.len();
        for path in paths {
            found.push(path.map_err(|e| format!("cannot read `{}`: {}", e.path().display(), e.error()))?);
            if found.len() > MOST_NAMES {
                return Err(format!("it matches more than {MOST_NAMES} files"));
            }
        }
        if found.len() == before {
            return Err(format!("nothing matches `{one}`"));
        }
    }
    Ok(found)
}

/// `a{1..3}` and `a{x,y}` written out, as bash and WebDataset do it.
fn braces(text: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((inside, after)) = behind.split_once('}') else { break };
        if inside.contains('{') {
            return Err("braces in braces are not understood; write the names out".into());
        }
        let choices = match range(inside)? {
            Some(numbers) => numbers,
            None => inside.split(',').map(str::to_owned).collect(),
        };
        if names.len().saturating_mul(choices.len()) > MOST_NAMES {
            return Err(format!("its braces stand for more than {MOST_NAMES} names"));
        }
        let every = |name: &String| choices.iter().map(|c| format!("{name}{before}{c}")).collect::<Vec<_>>();
        names = names.iter().flat_map(every).collect();
        rest = after;
    }
    Ok(names.into_iter().map(|name| name + rest).collect())
}

/// `000..012`, `3..0` and `0..9..3` → numbers; as wide as the wider end if one of them begins
/// with a zero.
fn range(inside: &str) -> Result<Option<Vec<String>>, String> {
    let parts: Vec<&str> = inside.split("..").collect();
    let (from, to, step) = match parts[..] {
        [from, to] => (from, to, "1"),
        [from, to, step] => (from, to, step),
        _ => return Ok(None),
    };
    let (Ok(a), Ok(b), Ok(step)) = (from.parse::<u64>(), to.parse::<u64>(), step.parse::<usize>()) else {
        return Ok(None);
    };
    let step = step.max(1);
    if a.abs_diff(b) / step as u64 >= MOST_NAMES as u64 {
        return Err(format!("`{{{inside}}}` matches more than {MOST_NAMES} names"));
    }
    let padded = [from, to].iter().any(|n| n.len() > 1 && n.starts_with('0'));
    let width = if padded { from.len().max(to.len()) } else { 0 };
    let numbers: Vec<u64> =
        if a <= b { (a..=b).step_by(step).collect() } else { (b..=a).rev().step_by(step).collect() };
    Ok(Some(numbers.into_iter().map(|n| format!("{n:0width$}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_what_bash_makes_of_them() {
        for (pattern, expected) in [
            ("a-{3..0}.tar", "a-3.tar a-2.tar a-1.tar a-0.tar"),
            ("{08..11}", "08 09 10 11"),
            ("{8..11}", "8 9 10 11"),
            ("{10..8}", "10 9 8"),
            ("{0..9..4}", "0 4 8"),
            ("{9..0..4}", "9 5 1"),
            ("a{x,y}{0..1}", "ax0 ax1 ay0 ay1"),
            ("a{b", "a{b"),
            ("{a..c}", "{a..c}".trim_matches(['{', '}'])),
        ] {
            assert_eq!(braces(pattern).unwrap().join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn no_pattern_stands_for_more_than_there_can_be() {
        for pattern in ["{0..9999999}.tar", "{0..18446744073709551615}", &"{0..9}".repeat(40)] {
            assert!(braces(pattern).unwrap_err().contains("more than 100000 names"), "{pattern}");
        }
        assert!(braces("{a,{b,c}}").unwrap_err().contains("braces in braces"));
    }
}
