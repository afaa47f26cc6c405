//! Storage formats of weights, and the instruction sets of this processor for them, detected at run
//! time.

/// Storage format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Single precision, as are the inputs.
    F32,
    /// bfloat16, as are the inputs; sums in single precision.
    Bf16,
    /// 8-bit integers and a scale per output. Inputs are 16-bit integers with a scale per row, and
    /// sums are exact, so that only the rounding of the weights matters.
    Int8,
}

/// An instruction set that kernels are written for, and proof that this processor supports it:
/// those beyond [`Isa::PLAIN`] come from [`Isa::available`] and [`Isa::best`] only.
///
/// ```compile_fail
/// let unchecked = cpu_kernels::Isa(cpu_kernels::isa::Level::Avx512);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Safe Rust for any processor.
    Plain,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512, with the extension that the weights' format needs: BF16 for bf16, VNNI for int8.
    Avx512,
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Isa {
    /// Safe Rust, for any processor.
    pub const PLAIN: Isa = Isa(Level::Plain);

    pub(crate) fn level(self) -> Level {
        self.0
    }

    /// The best instruction set of this processor for weights of `format`.
    pub fn best(format: Format) -> Isa {
        *Isa::available(format).last().expect("plain code runs anywhere")
    }

    /// All instruction sets of this processor for weights of `format`, best last.
    pub fn available(format: Format) -> Vec<Isa> {
        let mut found = vec![Isa::PLAIN];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Isa(Level::Avx2));
            }
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let special = match format {
                Format::F32 => true,
                Format::Bf16 => is_x86_feature_detected!("avx512bf16"),
                Format::Int8 => is_x86_feature_detected!("avx512vnni"),
            };
            if found.len() == 2 && wide && special {
                found.push(Isa(Level::Avx512));
            }
        }
        let _ = format;
        found
    }
}

/// Whether this processor has AMX for bf16 matrix products, which libraries use and stable Rust
/// does not expose.
pub fn has_amx_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const AMX_BF16: u32 = 1 << 22;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16 != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Compiles one body for each [`Isa`], selected by the first argument. The body is generic over
/// whether products and sums are fused, and is inlined into functions with the target features.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match isa.level() {
                    // SAFETY: an `Isa` other than `PLAIN` comes from `Isa::available`, which
                    // detects the features.
                    $crate::isa::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::isa::Level::Plain => {}
                }
            }
            let _ = isa;
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use for_each_isa;
