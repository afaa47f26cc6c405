//! Compiles this crate's C++ against the headers of the libtorch that torch-sys found.

use std::env;
use std::path::{Path, PathBuf};

/// Linked into the program.
const LINKED: [&str; 7] = [
    "csrc/attention.cpp",
    "csrc/c10d.cpp",
    "csrc/fused.cpp",
    "csrc/linear.cpp",
    "csrc/quantizer.cpp",
    "csrc/random.cpp",
    "csrc/tf32.cpp",
];
/// Included by these.
const HEADERS: [&str; 5] =
    ["csrc/caught.h", "include/gloo", "csrc/numbers.h", "csrc/products.h", "csrc/twice.h"];
const CUDA_GRAPH: &str = "csrc/cuda_graph.cpp";

fn main() {
    println!("cargo:rustc-check-cfg=cfg(cuda_graphs)");
    for file in LINKED.iter().chain(&HEADERS).chain([&CUDA_GRAPH]) {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let lib = env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch lies");
    let libtorch = Path::new(&lib).parent().expect("a folder in libtorch's");
    linked(libtorch);
    if let Some(cuda) = cuda_includes(libtorch) {
        cuda_graph(libtorch, &cuda);
        println!("cargo:rustc-cfg=cuda_graphs");
    }
}

fn torch_includes(libtorch: &Path) -> [PathBuf; 2] {
    ["include/torch/csrc/api/include", "include"].map(|dir| libtorch.join(dir))
}

fn linked(libtorch: &Path) {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .warnings(false)
        // Without -fopenmp the loops of `at::parallel_for`, a template, silently run on one
        // thread.
        .flags(["-fopenmp", "-fno-math-errno", "-fno-trapping-math"])
        .include("include") // the names of gloo
        .includes(torch_includes(libtorch))
        .define("USE_C10D_GLOO", None)
        .files(LINKED)
        .compile("ext_linked");
    // The threads must be those of libtorch's own OpenMP, which its wheel contains.
    match libtorch.join("lib/libgomp.so.1").is_file() {
        true => println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1"),
        false => println!("cargo:rustc-link-lib=dylib=gomp"),
    }
}

/// Builds a separate library, because its undefined symbols are those of libtorch's CUDA half,
/// which programs do not link.
fn cuda_graph(libtorch: &Path, cuda: &Path) {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).pic(true).includes(torch_includes(libtorch)).include(cuda);
    let library = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("cuda_graph.so");
    let mut command = build.get_compiler().to_command();
    command.args(["-shared", "-o"]).arg(&library).arg(CUDA_GRAPH);
    let status = command.status().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Headers of CUDA's runtime, if they are installed (by `make libtorch`, even without CUDA) and
/// libtorch's own are those of a build with CUDA. Otherwise the crate is built without graphs.
fn cuda_includes(libtorch: &Path) -> Option<PathBuf> {
    let with_cuda = libtorch.join("include/c10/cuda/impl/cuda_cmake_macros.h").is_file();
    let beside = libtorch.parent()?.join("nvidia/cu13/include");
    let installed = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("include"));
    let complete =
        |dir: &PathBuf| dir.join("cuda_runtime_api.h").is_file() && dir.join("crt/host_defines.h").is_file();
    [Some(beside), installed].into_iter().flatten().find(|dir| with_cuda && complete(dir))
}
