//! Links between the pages: every relative link has a file, every anchor a heading, and every page
//! is in the index.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()))
}

/// The pages in `docs/`, the README, and the cards of the bundled models.
fn pages() -> Vec<PathBuf> {
    let files = |folder: &str| -> Vec<PathBuf> {
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let docs = files("docs").into_iter().filter(|p| p.extension().is_some_and(|e| e == "md"));
    let cards = files("models").into_iter().map(|model| model.join("MODEL_CARD.md"));
    docs.chain(cards).chain([root().join("README.md"), root().join("tests/goldens/README.md")]).collect()
}

/// A page without its blocks of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The targets of `[text](target)` and `![text](target)`.
fn links(page: &str) -> Vec<String> {
    let text: Vec<&str> = prose(page).collect();
    let text = text.join("\n");
    let found = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    found.filter(|target| !target.contains(char::is_whitespace)).map(str::to_owned).collect()
}

/// The anchors of a page's headings, as forges and site generators make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        for link in links(&text).iter().filter(|l| !l.contains("://") && !l.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: `{link}` leads nowhere", page.display());
            if let Some(anchor) = anchor {
                let known = anchors(&read(&target));
                assert!(known.contains(anchor), "{}: `{link}`, of {known:?}", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed}");
}

#[test]
fn every_page_is_in_the_index_and_in_the_site() {
    let index = links(&read(&root().join("docs/index.md")));
    let site = read(&root().join("zensical.toml"));
    for page in pages().into_iter().filter(|p| p.starts_with(root().join("docs")) && !p.ends_with("index.md"))
    {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(index.iter().any(|link| link == name), "docs/index.md does not name {name}");
        assert!(site.contains(&format!("\"{name}\"")), "zensical.toml does not name {name}");
    }
}
