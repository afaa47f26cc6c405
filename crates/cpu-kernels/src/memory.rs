//! Memory aligned to cache lines, and slices that the workers of a pool write in disjoint parts.

use std::cell::UnsafeCell;

use memmap2::MmapMut;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Minimum size of memory mapped in huge pages, if the system has them: a product streams through
/// its weights once, and with 4 kB pages it would stall on address translation.
const LARGE: usize = 1 << 21;

enum Lines {
    Heap(Vec<Line>),
    Pages(MmapMut),
}

/// Plain numbers, aligned to a cache line.
pub(crate) struct Aligned<T> {
    lines: Lines,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

/// Types of which every bit pattern is a value.
pub(crate) trait Number: Copy + Send + Sync + 'static {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for u16 {}
impl Number for i8 {}
impl Number for u8 {}
impl Number for i16 {}

impl<T: Number> Aligned<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let lines = match (bytes >= LARGE).then(|| pages(bytes)).flatten() {
            Some(pages) => Lines::Pages(pages),
            None => Lines::Heap(vec![Line([0; 64]); bytes.div_ceil(64)]),
        };
        Aligned { lines, len, kind: std::marker::PhantomData }
    }

    /// All elements.
    pub fn as_slice(&self) -> &[T] {
        let start = match &self.lines {
            Lines::Heap(lines) => lines.as_ptr().cast(),
            Lines::Pages(pages) => pages.as_ptr(),
        };
        // SAFETY: both hold at least `len` numbers, are aligned for them, and any bits are a
        // number.
        unsafe { std::slice::from_raw_parts(start.cast(), self.len) }
    }

    /// All elements.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let start = match &mut self.lines {
            Lines::Heap(lines) => lines.as_mut_ptr().cast(),
            Lines::Pages(pages) => pages.as_mut_ptr(),
        };
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.len) }
    }
}

/// Zeroed pages, huge ones where the system has them.
fn pages(bytes: usize) -> Option<MmapMut> {
    let pages = MmapMut::map_anon(bytes).ok()?;
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage); // only speed depends on it
    Some(pages)
}

/// A slice that the workers of a pool write in disjoint parts and read after a barrier.
pub(crate) struct DisjointSlice<'a, T>(&'a [UnsafeCell<T>]);

// SAFETY: every access goes through the two unsafe functions, whose callers keep parts disjoint
// between barriers.
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T: Number> DisjointSlice<'a, T> {
    /// Shares an exclusively borrowed slice.
    pub fn new(slice: &'a mut [T]) -> Self {
        let cells: *const [UnsafeCell<T>] = std::ptr::from_mut(slice) as *const [UnsafeCell<T>];
        // SAFETY: `UnsafeCell<T>` has the layout of `T`, and the slice is borrowed exclusively for
        // 'a.
        DisjointSlice(unsafe { &*cells })
    }

    /// Elements `at..at + len` for reading.
    ///
    /// # Safety
    /// No worker writes them until the next barrier.
    pub unsafe fn read(&self, at: usize, len: usize) -> &'a [T] {
        let part = &self.0[at..at + len];
        // SAFETY: in bounds by the line above; no writer, by the caller's contract.
        unsafe { std::slice::from_raw_parts(part.as_ptr().cast(), len) }
    }

    /// Elements `at..at + len` for writing.
    ///
    /// # Safety
    /// No other worker reads or writes them until the next barrier, and the caller holds no other
    /// view of them.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn write(&self, at: usize, len: usize) -> &'a mut [T] {
        let part = &self.0[at..at + len];
        // SAFETY: in bounds by the line above; exclusive, by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(part.as_ptr() as *mut T, len) }
    }
}
