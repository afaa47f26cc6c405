//! Compiles the one C++ file against the headers of the libtorch that torch-sys found.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/fused.cpp");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch lies");
    let include = PathBuf::from(lib).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .warnings(false)
        .flags(["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"])
        .includes([include.join("torch/csrc/api/include"), include])
        .file("src/fused.cpp")
        .compile("ext_fused");
}
