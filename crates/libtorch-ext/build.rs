//! Compiles `csrc/cuda_graph.cpp` where the headers of libtorch's CUDA half and of CUDA's runtime are at hand (`make
//! libtorch` installs them, also without CUDA itself). Elsewhere the crate is built without it and says so when asked.

use std::env;
use std::path::{Path, PathBuf};

const SOURCE: &str = "csrc/cuda_graph.cpp";

fn main() {
    println!("cargo:rustc-check-cfg=cfg(cuda_graphs)");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed={SOURCE}");
    let Some(includes) = includes() else { return };
    let mut compiler = cc::Build::new();
    compiler.cpp(true).std("c++20").warnings(false).pic(true);
    for include in includes {
        compiler.flag("-isystem").flag(&include);
    }
    let library = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("cuda_graph.so");
    let mut command = compiler.get_compiler().to_command();
    command.args(["-shared", "-o"]).arg(&library).arg(SOURCE);
    let status = command.status().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
    println!("cargo:rustc-cfg=cuda_graphs");
}

/// Where headers are, if all are there.
fn includes() -> Option<Vec<PathBuf>> {
    let libtorch = PathBuf::from(env::var_os("LIBTORCH")?);
    let torch = libtorch.join("include");
    let cuda = [Some(libtorch.parent()?.join("nvidia/cu13")), env::var_os("CUDA_HOME").map(PathBuf::from)];
    let complete =
        |dir: &Path| dir.join("cuda_runtime_api.h").is_file() && dir.join("crt/host_defines.h").is_file();
    let cuda = cuda.into_iter().flatten().map(|dir| dir.join("include")).find(|dir| complete(dir))?;
    let compiled_for_cuda = torch.join("c10/cuda/impl/cuda_cmake_macros.h").is_file();
    compiled_for_cuda.then(|| vec![torch.clone(), torch.join("torch/csrc/api/include"), cuda])
}
