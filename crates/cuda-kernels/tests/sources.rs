//! The sources compile with NVIDIA's compiler, which needs no GPU.

use libtorch_ext::cuda_kernel::{compile, compiler_is_present};

#[test]
fn every_source_compiles_for_the_gpus_it_may_meet() {
    // Loads libtorch, next to which the compiler is looked for.
    assert_eq!(tch::Tensor::from_slice(&[1i64]).numel(), 1);
    if !compiler_is_present() {
        // `make test` installs it; elsewhere the error names the missing library.
        let error = compile(&cuda_kernels::sources()[0], (9, 0)).unwrap_err().to_string();
        assert!(error.contains("libnvrtc.so"), "{error}");
        return;
    }
    for source in cuda_kernels::sources() {
        for capability in [(8, 0), (9, 0)] {
            let ptx = compile(&source, capability)
                .unwrap_or_else(|e| panic!("{capability:?} {:?}: {e}", source.defines));
            // Without a bound on its threads a kernel may take more registers than a block of them
            // has.
            let ptx = ptx.to_src();
            let [kernels, bounds] = [".entry", ".maxntid"].map(|word| ptx.matches(word).count());
            assert!(kernels > 0 && kernels == bounds, "{}: {kernels} kernels, {bounds} bounds", source.name);
        }
    }
}
