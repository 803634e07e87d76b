//! The native thread's side of `csrc/last_words.c`: a signal is about to end the process and waits for us to send the rest.

use std::ffi::{c_char, c_int, CString};
use std::time::{Duration, Instant};

use super::outbox::Outbox;

const FATAL: u32 = 1;
const INFO: u32 = 4;
/// Less than what the dying thread waits.
const TIMEOUT: Duration = Duration::from_millis(4500);

extern "C" {
    fn mm_last_words_listen(path: *const c_char);
    fn mm_last_words_deaf();
    fn mm_last_words_wanted(text: *mut *const c_char, size: *mut usize) -> c_int;
    fn mm_last_words_said(arrived: c_int);
}

/// What to say: a level and a text.
pub struct LastWords {
    pub level: u32,
    pub text: String,
}

/// From now on a dying process waits for us. `crash_file`: where it leaves its report in case that we can't send it.
pub fn listen(crash_file: &str) {
    // A path with a NUL can't be one of ours.
    let path = CString::new(crash_file).unwrap_or_default();
    // SAFETY: the text is terminated and copied by the call.
    unsafe { mm_last_words_listen(path.as_ptr()) }
}

/// From now on it does not.
pub fn deaf() {
    // SAFETY: stores an atomic.
    unsafe { mm_last_words_deaf() }
}

pub fn wanted() -> Option<LastWords> {
    let (mut text, mut size) = (std::ptr::null(), 0);
    // SAFETY: both pointers are valid for writes.
    let signal = unsafe { mm_last_words_wanted(&mut text, &mut size) };
    if signal == 0 {
        return None;
    }
    if size == 0 {
        return Some(LastWords {
            level: INFO,
            text: format!("ended by signal {signal}"),
        });
    }
    // SAFETY: `size` initialised bytes of a static buffer, which the dying thread writes no more.
    let report = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), size) };
    Some(LastWords {
        level: FATAL,
        text: String::from_utf8_lossy(report).into_owned(),
    })
}

/// Sends what is in the outbox, then lets the process die.
pub fn say(outbox: &Outbox) {
    let deadline = Instant::now() + TIMEOUT;
    outbox.stop(deadline);
    let arrived = outbox.wait_settled(outbox.horizon(), deadline) == Some(true);
    // SAFETY: stores an atomic and may unlink a file.
    unsafe { mm_last_words_said(c_int::from(arrived)) }
}
