//! Bakes the checkout's libtorch into the binary's search path, so that `gen` runs from anywhere.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH")
        && let Ok(lib) = std::fs::canonicalize(std::path::Path::new(&libtorch).join("lib"))
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", lib.display());
    }
}
