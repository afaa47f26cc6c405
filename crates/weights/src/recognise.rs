//! Recognition of files that are not checkpoints, for error messages.

/// Apparent format of a file that begins with `head` ("is a PNG image"), and advice.
pub(crate) fn describe(head: &[u8]) -> (String, String) {
    const FORMATS: [(&[u8], &str); 12] = [
        (b"\x89PNG", "is a PNG image"),
        (b"\xff\xd8\xff", "is a JPEG image"),
        (b"GIF8", "is a GIF image"),
        (b"%PDF", "is a PDF document"),
        (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
        (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
        (b"BZh", "is bzip2-compressed; unpack it first"),
        (b"\xfd7zXZ", "is xz-compressed; unpack it first"),
        (b"\x93NUMPY", "is a NumPy array (.npy)"),
        (b"\x89HDF", "is an HDF5 file (Keras weights, perhaps)"),
        (b"GGUF", "is a GGUF file"),
        (b"\x7fELF", "is a program"),
    ];
    let usual = "checkpoints are `.pt` or `.pth` files of `torch.save`, and `.safetensors` files".to_owned();
    let lower = String::from_utf8_lossy(head).to_lowercase();
    let start = lower.trim_start();
    if head.is_empty() {
        return ("is empty".into(), "the download or copy did not work; fetch it again".into());
    }
    if start.starts_with("version https://git-lfs") {
        return (
            "is a Git LFS pointer, not the file itself".into(),
            "run `git lfs pull` where it came from".into(),
        );
    }
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        let advice = "the server answered the download with a page (a warning or a login); fetch the file with a browser, or with `gdown` from Google Drive";
        return ("is a web page".into(), advice.into());
    }
    if let Some((_, what)) = FORMATS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return ((*what).into(), usual);
    }
    if head.get(257..262) == Some(b"ustar") {
        return ("is a tar archive; unpack it first".into(), usual);
    }
    if head.len() > 2 && head[0] == 0x80 && head[1] <= 5 {
        return ("is a Python pickle, but not one of `torch.save`".into(), usual);
    }
    if head.iter().all(|&b| b >= 0x20 || b"\t\n\r".contains(&b)) {
        let first: String =
            String::from_utf8_lossy(head).lines().next().unwrap_or_default().chars().take(40).collect();
        return (format!("is a text file that begins with \"{first}\""), usual);
    }
    ("is in no format known here".into(), usual)
}
