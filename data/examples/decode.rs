//! Decodes the files named on the standard input, a line each, and prints for each its size and the
//! SHA-256 of its RGB bytes, or why it is refused, so that they can be compared with another
//! decoder's: `find pictures -type f | cargo run --release -p data --example decode [FOLDER]`; into
//! FOLDER go the bytes, as `N.rgb`.
#![allow(clippy::print_stdout)]

use std::io::BufRead;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    std::panic::set_hook(Box::new(|_| ())); // a decoder's panic is its image's error
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let name = line?;
        match data::decode(&name, &std::fs::read(&name)?) {
            Ok((image, _)) => {
                let digest = base::hash::hex(&base::hash::sha256(image.as_raw()));
                println!("{name}\t{}x{}\t{digest}", image.width(), image.height());
                if let Some(folder) = &folder {
                    std::fs::write(folder.join(format!("{number}.rgb")), image.as_raw())?;
                }
            }
            Err(error) => println!("{name}\trefused\t{error}"),
        }
    }
    Ok(())
}
