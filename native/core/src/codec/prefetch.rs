//! Memory that is looked at soon.

/// Has the processor fetch an element that is looked at soon. Nothing waits for it, so it may be any.
#[inline(always)]
pub fn prefetch<T>(all: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint reads nothing, so its address needs to be no valid one.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(all.as_ptr().wrapping_add(index).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (all, index);
}
