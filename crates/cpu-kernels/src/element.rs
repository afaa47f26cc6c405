//! Elements of feature maps and of the KV cache: `f32`, or `u16` holding bf16.

use crate::math::{from_bf16, to_bf16};
use crate::memory::Number;

/// A stored number, read and written as fp32.
pub(crate) trait Element: Number {
    fn read(self) -> f32;
    fn write(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn read(self) -> f32 {
        self
    }
    #[inline(always)]
    fn write(x: f32) -> f32 {
        x
    }
}

impl Element for u16 {
    #[inline(always)]
    fn read(self) -> f32 {
        from_bf16(self)
    }
    #[inline(always)]
    fn write(x: f32) -> u16 {
        to_bf16(x)
    }
}
