//! No signals of the system for files of ours that may not grow.

use std::marker::PhantomData;

extern "C" {
    fn mm_hush(hushed: *mut RawHushed);
    fn mm_unhush(hushed: *const RawHushed);
}

/// At least `mm_hushed`.
#[repr(C, align(16))]
struct RawHushed([u64; 32]);

/// As long as it lives, this thread gets no signal because a file may not grow further (RLIMIT_FSIZE), which would end a
/// program that knows nothing of it: only the error.
pub struct Hushed(RawHushed, PhantomData<*const ()>);

pub fn hush() -> Hushed {
    let mut hushed = RawHushed([0; 32]);
    // SAFETY: writable, and large enough for a signal set of any platform and an int.
    unsafe { mm_hush(&mut hushed) };
    Hushed(hushed, PhantomData)
}

impl Drop for Hushed {
    fn drop(&mut self) {
        // SAFETY: as `mm_hush` left it; not `Send`, for the mask is that of the thread.
        unsafe { mm_unhush(&self.0) }
    }
}
