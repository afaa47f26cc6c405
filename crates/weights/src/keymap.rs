//! A file's names → a model's names.

/// Map from tensors' names in a file to the names of variables.
///
/// Wrappers' prefixes (`module.` of DDP, `_orig_mod.` of `torch.compile`) are always removed first;
/// then the first rule that matches applies. A pattern is a dotted name in which `*` matches one
/// part and a final `**` all the rest; in a replacement they insert the matched parts, in order.
#[derive(Debug, Clone, Default)]
pub struct KeyMap {
    rules: Vec<Rule>,
    optional: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Rule {
    Rename { from: String, to: String },
    Drop { pattern: String, because: String },
}

/// Result of the map for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mapped<'a> {
    To(String),
    Dropped { because: &'a str },
}

impl KeyMap {
    /// Names are already the model's.
    pub fn identity() -> Self {
        KeyMap::default()
    }

    /// Adds a rule: names matching `from` become `to`.
    #[must_use]
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.rules.push(Rule::Rename { from: from.into(), to: to.into() });
        self
    }

    /// Adds a rule: names matching `pattern` are left out, for a reason that reports show.
    #[must_use]
    pub fn drop(mut self, pattern: &str, because: &str) -> Self {
        self.rules.push(Rule::Drop { pattern: pattern.into(), because: because.into() });
        self
    }

    /// Variables matching `pattern` keep their value where the file lacks them, for a reason.
    #[must_use]
    pub fn optional(mut self, pattern: &str, because: &str) -> Self {
        self.optional.push((pattern.into(), because.into()));
        self
    }

    /// Result for a tensor of this name.
    pub(crate) fn apply(&self, name: &str) -> Mapped<'_> {
        let name = strip(name);
        for rule in &self.rules {
            match rule {
                Rule::Rename { from, to } => {
                    if let Some(parts) = captures(from, &name) {
                        return Mapped::To(fill(to, &parts));
                    }
                }
                Rule::Drop { pattern, because } => {
                    if captures(pattern, &name).is_some() {
                        return Mapped::Dropped { because };
                    }
                }
            }
        }
        Mapped::To(name)
    }

    /// Reason why a variable may be missing, if it may.
    pub(crate) fn may_be_missing(&self, variable: &str) -> Option<&str> {
        let (_, because) = self.optional.iter().find(|(pattern, _)| captures(pattern, variable).is_some())?;
        Some(because)
    }
}

/// Whether `pattern` matches a name: a dotted name that also matches everything below it, in which
/// `*` matches one part (`layers.0`, `layers.*.attention`, `encoder`).
pub fn matches(pattern: &str, name: &str) -> bool {
    captures(pattern, name).is_some() || captures(&format!("{pattern}.**"), name).is_some()
}

/// Removes what wrappers put into names: `module.` in front, `_orig_mod.` anywhere.
pub(crate) fn strip(name: &str) -> String {
    let mut rest = name;
    while let Some(inner) = rest.strip_prefix("module.").or_else(|| rest.strip_prefix("_orig_mod.")) {
        rest = inner;
    }
    rest.split('.').filter(|part| *part != "_orig_mod").collect::<Vec<_>>().join(".")
}

/// Parts matched by each `*` and a final `**`; `None` if the name does not match.
fn captures<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut found = vec![];
    let mut rest = Some(name);
    for part in pattern.split('.') {
        let here = rest?;
        if part == "**" {
            found.push(here);
            return Some(found);
        }
        let (head, tail) = here.split_once('.').map_or((here, None), |(h, t)| (h, Some(t)));
        match part {
            "*" => found.push(head),
            _ if part == head => {}
            _ => return None,
        }
        rest = tail;
    }
    rest.is_none().then_some(found)
}

fn fill(replacement: &str, parts: &[&str]) -> String {
    let mut parts = parts.iter();
    let part = |p| if p == "*" || p == "**" { parts.next().copied().unwrap_or_default() } else { p };
    replacement.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_leave_no_trace() {
        assert_eq!(strip("module._orig_mod.layers.0.w"), "layers.0.w");
        assert_eq!(strip("_orig_mod.module.w"), "w");
        assert_eq!(strip("encoder._orig_mod.w"), "encoder.w");
        assert_eq!(strip("head.module.w"), "head.module.w"); // a model's own part may be called so
    }

    #[test]
    fn a_pattern_means_all_below_it() {
        assert!(matches("layers.0", "layers.0.w") && !matches("layers.0", "layers.01.w"));
        assert!(matches("layers.*.norm", "layers.7.norm.weight") && !matches("layers.*.norm", "norm.weight"));
        assert!(matches("norm.weight", "norm.weight") && !matches("norm.weight.x", "norm.weight"));
        assert!(matches("layers.**", "layers.0.w") && !matches("layer", "layers.0.w"));
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let map = KeyMap::identity()
            .drop("loss.**", "used only in training")
            .rename("down.*.block.*.**", "conv_blocks.*.res.*.**")
            .rename("a", "b");
        let to = |s: &str| Mapped::To(s.into());
        assert_eq!(map.apply("module.down.3.block.1.conv1.weight"), to("conv_blocks.3.res.1.conv1.weight"));
        assert_eq!(map.apply("loss.disc.w"), Mapped::Dropped { because: "used only in training" });
        assert_eq!(map.apply("loss"), to("loss"));
        assert_eq!(map.apply("a"), to("b"));
        assert_eq!(map.apply("a.c"), to("a.c"));
    }
}
