//! The native thread's side of `csrc/last_words.c`: a signal is about to end the process and waits for us to send the rest.

use std::ffi::{c_char, c_int};
use std::time::{Duration, Instant};

use super::outbox::Outbox;

const FATAL: u32 = 1;
const INFO: u32 = 4;
/// Less than what the dying thread waits.
const TIMEOUT: Duration = Duration::from_millis(4500);

extern "C" {
    fn mm_last_words_listen();
    fn mm_last_words_deaf();
    fn mm_last_words_wanted(text: *mut *const c_char, size: *mut usize) -> c_int;
    fn mm_last_words_said();
}

/// What to say: a level and a text.
pub struct LastWords {
    pub level: u32,
    pub text: String,
}

/// From now on a dying process waits for us.
pub fn listen() {
    // SAFETY: no thread is dying that would wait for an answer, as nobody has listened.
    unsafe { mm_last_words_listen() }
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

/// Sends what is in the outbox, then lets the process die. What is left lies in the spool, if there is one.
pub fn say(outbox: &Outbox) {
    let deadline = Instant::now() + TIMEOUT;
    outbox.stop(deadline);
    outbox.wait_settled(outbox.horizon(), deadline);
    // SAFETY: stores an atomic.
    unsafe { mm_last_words_said() }
}
