//! Which instructions this processor has, asked at run time, for weights of a format.

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Single precision, inputs too.
    F32,
    /// bfloat16, inputs too; sums in single precision.
    Bf16,
    /// 8-bit integers and a scale for each output. Inputs are 16-bit integers with a scale for each row, and the sums
    /// are exact, so that only the weights lose precision that shows.
    Int8,
}

/// A set of instructions that kernels are written for, and proof that this processor has them: those beyond
/// [`Isa::PLAIN`] come from [`Isa::available`] and [`Isa::best`] alone.
///
/// ```compile_fail
/// let unchecked = kernels::Isa(kernels::isa::Level::Avx512);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Safe Rust for any processor.
    Plain,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512, with what the weights' format needs: BF16 for bf16, VNNI for int8.
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

    /// The best that this processor has for weights of `format`.
    pub fn best(format: Format) -> Isa {
        *Isa::available(format).last().expect("plain code runs anywhere")
    }

    /// All that this processor has for weights of `format`, best last.
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

/// Whether this processor multiplies matrices of bf16 in a unit of its own (AMX), which libraries use and stable Rust does
/// not reach.
pub fn has_bf16_matrices() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const AMX_BF16: u32 = 1 << 22;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16 != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// One body, compiled for each [`Isa`] and chosen by the first argument. The body is generic in whether products and
/// sums are fused, and is inlined into functions that may use the instructions.
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
                    // SAFETY: an `Isa` other than `PLAIN` comes from `Isa::available`, which asked the processor.
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
