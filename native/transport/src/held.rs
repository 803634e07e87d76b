//! Locks of this crate: nobody waits long for them, and one that a panic left behind is taken all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
