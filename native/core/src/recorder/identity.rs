//! Fresh ids, that of the machine's boot, and times as the wire writes them.

use std::ffi::{c_int, c_void};
use std::fs;

use crate::codec::timestamp::date_of;

extern "C" {
    fn getentropy(buffer: *mut c_void, length: usize) -> c_int;
}

/// A version 4 UUID. Its bytes come from the system each time, so a forked child can't repeat its parent's.
pub fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    // SAFETY: the buffer has 16 writable bytes, below the call's limit of 256.
    let status = unsafe { getentropy(bytes.as_mut_ptr().cast(), bytes.len()) };
    assert_eq!(status, 0, "the system gives no random bytes");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Of this boot of the machine; empty when it does not tell.
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(ns_since_epoch: i64) -> String {
    let seconds = ns_since_epoch.div_euclid(1_000_000_000);
    let nanoseconds = ns_since_epoch.rem_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanoseconds:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// A text of a process, stream or property as every server takes it: no NUL, at most 255 characters.
pub fn clean(text: &str) -> String {
    text.chars().filter(|&character| character != '\0').take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_795_391_999_999_999_999), "2026-11-22T23:59:59.999999999Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn ids_differ_and_are_version_4() {
        let (first, second) = (new_id(), new_id());
        assert_ne!(first, second);
        assert_eq!((first.len(), &first[14..15]), (36, "4"));
    }
}
