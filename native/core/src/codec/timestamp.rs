//! RFC 3339 texts to nanoseconds since the epoch, and back. A zone is required: a local time is never guessed.

use std::fmt::Write;

use super::error::{wire_error, Result};

const NANOSECONDS: i128 = 1_000_000_000;

/// Reads `2026-11-22T13:49:06.566975884+00:00`. Also read: a space or `t` instead of `T`, `z`, a zone without colon,
/// and a leap second (which is the instant where the next second begins). Digits beyond the ninth are dropped.
pub fn parse_rfc3339(text: &str) -> Result<i64> {
    parse(text.as_bytes()).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        wire_error!("`{shown}` is no RFC 3339 time between 1677 and 2262")
    })
}

fn parse(text: &[u8]) -> Option<i64> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    expect(&mut rest, b"-")?;
    let month = digits(&mut rest, 2)?;
    expect(&mut rest, b"-")?;
    let day = digits(&mut rest, 2)?;
    expect(&mut rest, b"Tt ")?;
    let hour = digits(&mut rest, 2)?;
    expect(&mut rest, b":")?;
    let minute = digits(&mut rest, 2)?;
    expect(&mut rest, b":")?;
    let second = digits(&mut rest, 2)?;
    let fraction = fraction(&mut rest)?;
    let offset_minutes = zone(&mut rest)?;
    if !rest.is_empty()
        || !(1..=12).contains(&month)
        || !(1..=days_of_month(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + (hour * 60 + minute - offset_minutes) * 60 + second;
    i64::try_from(i128::from(seconds) * NANOSECONDS + i128::from(fraction)).ok()
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    taken.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn expect(rest: &mut &[u8], one_of: &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    one_of.contains(first).then_some(*first)
}

fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let Some(after) = rest.strip_prefix(b".") else {
        return Some(0);
    };
    let length = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (figures, after) = after.split_at(length);
    *rest = after;
    Some((0..9).fold(0, |value, place| {
        value * 10 + figures.get(place).map_or(0, |byte| i64::from(byte - b'0'))
    }))
}

fn zone(rest: &mut &[u8]) -> Option<i64> {
    let sign = match expect(rest, b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Some(0),
    };
    let hours = digits(rest, 2)?;
    if let Some(after) = rest.strip_prefix(b":") {
        *rest = after;
    }
    let minutes = digits(rest, 2)?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar. Years are counted from March so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719 468 days lie between 0000-03-01 and 1970-01-01
    year * 365 + leap_days + day_of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar; the year before 1 is 0.
///
/// Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days: years begin in March, and 400 of them
/// have 146 097 days.
pub fn date_of(days: i64) -> (i64, i64, i64) {
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Nanoseconds since the epoch as people read them, to the millisecond.
pub fn push_rfc3339(epoch_ns: i64, out: &mut String) {
    let milliseconds = epoch_ns.div_euclid(1_000_000);
    let (days, rest) = (milliseconds.div_euclid(86_400_000), milliseconds.rem_euclid(86_400_000));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        rest % 1000
    );
}

#[cfg(test)]
mod tests {
    use super::{parse_rfc3339, push_rfc3339};

    #[test]
    fn forms_of_senders() {
        let expected = 1_795_355_346_566_975_884;
        for text in [
            "2026-11-22T13:49:06.566975884+00:00",
            "2026-11-22 13:49:06.566975884Z",
            "2026-11-22t14:49:06.566975884999+01:00",
            "2026-11-22T10:19:06.566975884-0330",
        ] {
            assert_eq!(parse_rfc3339(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(parse_rfc3339("1969-12-31T23:59:59.5Z"), Ok(-500_000_000));
        assert_eq!(
            parse_rfc3339("2016-12-31T23:59:60Z"),
            parse_rfc3339("2017-01-01T00:00:00Z")
        );
        assert_eq!(parse_rfc3339("2024-02-29T00:00:00Z"), Ok(1_709_164_800_000_000_000));
        assert_eq!(parse_rfc3339("2024-03-01T00:00:00Z"), Ok(1_709_251_200_000_000_000));
        assert_eq!(parse_rfc3339("1700-03-01T00:00:00Z"), Ok(-8_515_238_400_000_000_000));
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "2026-11-22T13:49:06",
            "2026-11-22",
            "2026-13-22T13:49:06Z",
            "2026-02-29T13:49:06Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T13:49:61Z",
            "2026-11-22T13:49:06.Z",
            "2026-11-22T13:49:06Zx",
            "2026-11-22T13:49:06+24:00",
            "1600-01-01T00:00:00Z",
            "2300-01-01T00:00:00Z",
            "2026-1é-22T13:49:06Z",
        ] {
            assert!(parse_rfc3339(text).is_err(), "{text}");
        }
    }

    #[test]
    fn written() {
        for (ns, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123_000_000, "2000-02-29T00:00:00.123Z"),
            (1_767_225_599_999_999_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = String::new();
            push_rfc3339(ns, &mut out);
            assert_eq!(out, wanted);
        }
    }
}
