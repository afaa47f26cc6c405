//! The text of a piece of HTML, as Beautiful Soup over Python's `html.parser` reads it.
//!
//! Captions were cleaned with that pair, so its habits are kept where they show in a caption: a
//! lone `<` or `&` is text, a tag that never closes is text, an entity needs no semicolon but loses
//! the one it has, and two characters `&x` at the very end lose their `&`. Parsers after the HTML
//! standard decide otherwise in all of these.

use std::sync::LazyLock;

use fancy_regex::Regex;

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

/// A start tag up to its `>`: a name, then attributes with or without values.
static START_TAG: LazyLock<Regex> = LazyLock::new(|| {
    let name = r"<[a-zA-Z][^\t\n\r\f />\x00]*";
    let value = r#"(?:'[^']*'|"[^"]*"|(?!['"])[^>\s]*)"#;
    let attribute = format!(r#"(?<=['"\s/])[^\s/>][^\s/=>]*(?:\s*=+\s*{value}\s*)?(?:\s|/(?!>))*"#);
    regex(&format!(r"^{name}(?:[\s/]*(?:{attribute})*)?\s*"))
});
static ENTITY: LazyLock<Regex> = LazyLock::new(|| regex(r"^&([a-zA-Z][-.a-zA-Z0-9]*)[^a-zA-Z0-9]"));
static NUMBER: LazyLock<Regex> = LazyLock::new(|| regex(r"^&#([0-9]+|[xX][0-9a-fA-F]+)[^0-9a-fA-F]"));
static COMMENT_END: LazyLock<Regex> = LazyLock::new(|| regex(r"--\s*>"));
static TAG_NAME: LazyLock<Regex> = LazyLock::new(|| regex(r"^[a-zA-Z][^\t\n\r\f />\x00]*"));

/// Elements whose content is data, not markup, and no text of the page.
const RAW: [&str; 2] = ["script", "style"];
/// Elements whose text does not count as the page's.
const ASIDE: [&str; 3] = ["rt", "rp", "template"];

/// The text without tags, comments and declarations; entities are resolved.
pub fn text_of(html: &str) -> String {
    let mut reader = Reader { rest: html, open: vec![], raw: None, text: String::new() };
    // The parser is fed once and then closed; what it waits for in the first round is decided in
    // the second.
    reader.read(false);
    reader.read(true);
    reader.text
}

struct Reader<'a> {
    rest: &'a str,
    open: Vec<String>,
    raw: Option<&'static str>,
    text: String,
}

/// Construct at the beginning of the rest.
enum Step {
    /// Number of bytes processed.
    Took(usize),
    /// Its end is missing.
    Unfinished,
    /// The parser stops here for this round.
    Stop,
}

impl Reader<'_> {
    fn read(&mut self, end: bool) {
        while !self.rest.is_empty() {
            if !self.data_before_markup() {
                break;
            }
            if self.rest.is_empty() {
                break;
            }
            let step = if self.rest.starts_with('<') { self.markup() } else { self.reference(end) };
            match step {
                Step::Took(n) => self.skip(n),
                Step::Unfinished if end => {
                    let n = self.verbatim();
                    self.say_rest(n);
                }
                Step::Unfinished | Step::Stop => break,
            }
        }
        if end && self.raw.is_none() {
            self.say_rest(self.rest.len());
        }
    }

    fn skip(&mut self, n: usize) {
        self.rest = &self.rest[n..];
    }

    fn say(&mut self, text: &str) {
        if self.raw.is_none() && !self.open.iter().any(|t| ASIDE.contains(&t.as_str())) {
            self.text.push_str(text);
        }
    }

    /// The next `n` bytes are text.
    fn say_rest(&mut self, n: usize) {
        let (now, later) = self.rest.split_at(n);
        self.say(now);
        self.rest = later;
    }

    /// Takes the text before the next construct; false if the end of a raw element is missing.
    fn data_before_markup(&mut self) -> bool {
        let at = match self.raw {
            None => self.rest.find(['<', '&']),
            Some(name) => match end_of_raw(self.rest, name) {
                None => return false,
                found => found,
            },
        };
        self.say_rest(at.unwrap_or(self.rest.len()));
        true
    }

    fn markup(&mut self) -> Step {
        let s = self.rest;
        let upto =
            |found: Option<usize>, length: usize| found.map_or(Step::Unfinished, |i| Step::Took(i + length));
        if s[1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.start_tag()
        } else if s.starts_with("</") {
            self.end_tag()
        } else if let Some(inner) = s.strip_prefix("<!--") {
            match COMMENT_END.find(inner).ok().flatten() {
                Some(m) => Step::Took(4 + m.end()),
                None => Step::Unfinished,
            }
        } else if let Some(inner) = s.strip_prefix("<![cdata[") {
            let Some(i) = inner.find("]]>") else { return Step::Unfinished };
            self.say(&inner[..i]);
            Step::Took(9 + i + 3)
        } else if s.starts_with("<?") || s.starts_with("<!") {
            upto(s[2..].find('>'), 3)
        } else if s.len() > 1 {
            self.say("<");
            Step::Took(1)
        } else {
            Step::Stop
        }
    }

    fn start_tag(&mut self) -> Step {
        let s = self.rest;
        let Some(tag) = START_TAG.find(s).ok().flatten() else { return Step::Unfinished };
        let after = &s[tag.end()..];
        let end = if after.starts_with('>') {
            tag.end() + 1
        } else if after.starts_with("/>") {
            return Step::Took(tag.end() + 2); // opened and closed at once
        } else if after.is_empty() || after.starts_with(|c: char| c.is_ascii_alphabetic() || "=/".contains(c))
        {
            return Step::Unfinished;
        } else {
            // A tag with impossible contents is text up to them.
            self.say(&s[..tag.end()]);
            return Step::Took(tag.end());
        };
        let name = name_of(&s[1..]);
        self.raw = RAW.into_iter().find(|raw| *raw == name);
        self.open.push(name);
        Step::Took(end)
    }

    fn end_tag(&mut self) -> Step {
        let Some(end) = self.rest.find('>') else { return Step::Unfinished };
        let name = name_of(self.rest[2..].trim_start());
        if let Some(at) = self.open.iter().rposition(|t| *t == name) {
            self.open.truncate(at);
        }
        self.raw = None;
        Step::Took(end + 1)
    }

    /// At a `&`.
    fn reference(&mut self, end: bool) -> Step {
        let s = self.rest;
        if s.starts_with("&#") {
            return self.number();
        }
        if let Some(found) = ENTITY.captures(s).ok().flatten() {
            let name = found.get(1).expect("the group always takes part");
            match entity(name.as_str()) {
                Some(character) => self.say(&character),
                None => self.say(&s[..name.end()]),
            }
            return Step::Took(name.end() + usize::from(s[name.end()..].starts_with(';')));
        }
        match s[1..].chars().next() {
            Some(c) if c.is_ascii_alphabetic() => {
                if end && s.len() == 2 {
                    self.skip(1);
                }
                Step::Stop
            }
            Some(_) => {
                self.say("&");
                Step::Took(1)
            }
            None => Step::Stop,
        }
    }

    fn number(&mut self) -> Step {
        let s = self.rest;
        if let Some(found) = NUMBER.captures(s).ok().flatten() {
            let number = found.get(1).expect("the group always takes part");
            self.say(&htmlize::unescape(format!("&#{};", number.as_str())));
            return Step::Took(number.end() + usize::from(s[number.end()..].starts_with(';')));
        }
        if s.contains(';') {
            self.say_rest(2);
        }
        Step::Stop
    }

    /// Length of the text in an unfinished construct: to its `>`, else to the next `<`, else its
    /// first character.
    fn verbatim(&self) -> usize {
        let s = &self.rest[1..];
        s.find('>').map(|i| i + 2).or_else(|| s.find('<').map(|i| i + 1)).unwrap_or(1)
    }
}

/// The character of this very name; names that only begin with a known one are unknown.
fn entity(name: &str) -> Option<String> {
    let found = htmlize::unescape(format!("&{name};")).into_owned();
    (found == ";" || !found.ends_with(';')).then_some(found)
}

fn name_of(tag: &str) -> String {
    TAG_NAME.find(tag).ok().flatten().map(|m| m.as_str().to_lowercase()).unwrap_or_default()
}

/// Position of a raw element's end tag.
fn end_of_raw(s: &str, name: &str) -> Option<usize> {
    let pattern = regex(&format!(r"(?i)</\s*{name}\s*>"));
    pattern.find(s).ok().flatten().map(|m| m.start())
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn markup_goes_and_text_stays() {
        for (html, text) in [
            ("a <b>bold</b> word", "a bold word"),
            ("a<!-- note -->b<br/>c<?pi?>d", "abcd"),
            ("x <script>a < b</script> y<style>p{}</style>", "x  y"),
            ("<a href='x>y' title=\"z\">in</a>", "in"),
            ("fish &amp; chips &eacute;&#233;&#xe9;", "fish & chips ééé"),
        ] {
            assert_eq!(text_of(html), text, "{html}");
        }
    }

    /// Each line is what Python 3.11 and Beautiful Soup 4.15 say.
    #[test]
    fn broken_markup_is_read_as_python_reads_it() {
        for (html, text) in [
            ("i <3 you", "i <3 you"),
            ("a < b > c", "a < b > c"),
            ("never <b closed", "never <b closed"),
            ("salt&pepper", "salt&pepper"),
            ("at&t", "att"),
            ("&unknown; x", "&unknown x"),
            ("&amp x &ampersand; y", "& x &ampersand y"),
            ("&semi; &eacutes;", "; &eacutes"),
            ("tail &", "tail &"),
        ] {
            assert_eq!(text_of(html), text, "{html}");
        }
    }
}
