//! Single values as PostgreSQL writes them: numbers, decimals, dates, times and intervals in text form, `numeric` in binary.

use std::fmt::Write as _;

use micromegas_core::codec::timestamp::date_of;

/// In microseconds.
pub const DAY: i64 = 86_400_000_000;

pub fn integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut place = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        place -= 1;
        digits[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[place..]);
}

/// The shortest digits that give the value back, with an exponent where it is very large or small.
pub fn float(value: f64, plain: String, exponential: impl Fn() -> String, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if value != 0.0 && !(1e-4..1e15).contains(&value.abs()) {
        let text = exponential();
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        out.extend_from_slice(digits.as_bytes());
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        write_text(out, format_args!("e{sign}{exponent:0>2}"));
    } else {
        out.extend_from_slice(plain.as_bytes());
    }
}

fn write_text(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    struct Into<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Into<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // writing into memory can't fail
    let _ = Into(out).write_fmt(arguments);
}

pub fn decimal_text(value: i128, scale: u32, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    let scale = scale as usize;
    if scale == 0 {
        out.extend_from_slice(digits.as_bytes());
        return;
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    write_text(out, format_args!("{whole}.{fraction}"));
}

/// `numeric`: digits of base 10 000, of which the first has a weight, and how many decimals are shown.
pub fn decimal_binary(value: i128, scale: u32, out: &mut Vec<u8>) {
    let groups_behind = scale.div_ceil(4);
    // so that the point stands between two groups
    let padding = "0".repeat((groups_behind * 4 - scale) as usize);
    let digits = value.unsigned_abs().to_string() + &padding;
    let width = digits.len().div_ceil(4) * 4;
    let digits = format!("{digits:0>width$}");
    let mut groups: Vec<i16> = digits
        .as_bytes()
        .chunks(4)
        .map(|group| group.iter().fold(0i16, |sum, digit| sum * 10 + i16::from(digit - b'0')))
        .collect();
    let mut weight = groups.len() as i32 - groups_behind as i32 - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= leading as i32;
    if groups.is_empty() {
        weight = 0;
    }
    out.extend_from_slice(&(groups.len() as i16).to_be_bytes());
    out.extend_from_slice(&(weight as i16).to_be_bytes());
    out.extend_from_slice(&(if value < 0 { 0x4000i16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&(scale as i16).to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

pub fn hexadecimal(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn two_digits(value: i64, out: &mut Vec<u8>) {
    out.push(b'0' + (value / 10 % 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// Writes the date of a day since 1970-01-01; whether it lies before Christ is for the end of the text.
pub fn date(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = date_of(days);
    let shown = if year > 0 { year } else { 1 - year };
    if shown < 1000 {
        two_digits(shown / 100, out);
        two_digits(shown % 100, out);
    } else {
        integer(shown, out);
    }
    out.push(b'-');
    two_digits(month, out);
    out.push(b'-');
    two_digits(day, out);
    year <= 0
}

pub fn era(before_christ: bool, out: &mut Vec<u8>) {
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

fn fraction(microseconds: i64, out: &mut Vec<u8>) {
    if microseconds != 0 {
        out.push(b'.');
        let mut rest = microseconds;
        let mut unit = 100_000;
        while rest != 0 {
            out.push(b'0' + (rest / unit) as u8);
            rest %= unit;
            unit /= 10;
        }
    }
}

pub fn time_of_day(microseconds: i64, out: &mut Vec<u8>) {
    let seconds = microseconds / 1_000_000;
    two_digits(seconds / 3600, out);
    out.push(b':');
    two_digits(seconds / 60 % 60, out);
    out.push(b':');
    two_digits(seconds % 60, out);
    fraction(microseconds % 1_000_000, out);
}

pub fn moment(microseconds: i64, zoned: bool, out: &mut Vec<u8>) {
    let before_christ = date(microseconds.div_euclid(DAY), out);
    out.push(b' ');
    time_of_day(microseconds.rem_euclid(DAY), out);
    if zoned {
        out.extend_from_slice(b"+00");
    }
    era(before_christ, out);
}

pub fn interval(months: i32, days: i32, microseconds: i64, out: &mut Vec<u8>) {
    let start = out.len();
    let mut is_negative = false;
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number != 0 {
            if out.len() > start {
                out.push(b' ');
            }
            let plus = if is_negative && number > 0 { "+" } else { "" };
            let plural = if number == 1 { "" } else { "s" };
            write_text(out, format_args!("{plus}{number} {unit}{plural}"));
            is_negative = number < 0;
        }
    }
    if microseconds != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if microseconds < 0 {
            out.push(b'-');
        } else if is_negative {
            out.push(b'+');
        }
        let size = microseconds.unsigned_abs();
        let hours = size / 3_600_000_000;
        if hours < 10 {
            out.push(b'0');
        }
        integer(hours as i64, out);
        let rest = (size % 3_600_000_000) as i64;
        out.push(b':');
        two_digits(rest / 60_000_000, out);
        out.push(b':');
        two_digits(rest / 1_000_000 % 60, out);
        fraction(rest % 1_000_000, out);
    }
}
