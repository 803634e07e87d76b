//! `%` templates of log calls: parsed once per call site, applied exactly as Python would.
//!
//! What can't be applied exactly here (`%(name)s`, `*`, `%c`, `%a`, `#`, lengths) is left to the calling thread.

use std::fmt::Write;

use super::floats;
use super::value::Value;
use super::MAX_MESSAGE_BYTES;

/// MM_MAX_VALUES of csrc/record.h.
const MAX_CONVERSIONS: usize = 32;
const MAX_WIDTH: usize = 1000;
/// Of `%f`, without the precision.
pub const LONGEST_NUMBER: usize = 320;
const LONGEST_CUT_NOTE: usize = 64;

pub struct Template<'t> {
    text: &'t str,
    /// None: only the caller can format it.
    parts: Option<Parts>,
    /// Bytes that a message may have beside those of the values.
    longest_around: usize,
}

struct Parts {
    /// A literal and the conversion after it.
    conversions: Vec<(String, Conversion)>,
    tail: String,
}

struct Conversion {
    letter: u8,
    left: bool,
    zero: bool,
    sign: Option<char>,
    width: usize,
    precision: Option<usize>,
}

impl<'t> Template<'t> {
    pub fn parse(text: &'t str) -> Self {
        let parts = parse(text);
        let widths = parts.iter().flat_map(|parts| &parts.conversions);
        let widths = widths.map(|(_, conversion)| conversion.width + conversion.precision.unwrap_or(0));
        Self {
            text,
            longest_around: text.len() + widths.sum::<usize>(),
            parts,
        }
    }

    /// As the program wrote it.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// One letter per conversion: s, r, d (also i, u), x (also X, o), f (also e, g …).
    pub fn conversion_letters(&self) -> Option<Vec<u8>> {
        let parts = self.parts.as_ref()?;
        Some(
            parts
                .conversions
                .iter()
                .map(|(_, conversion)| conversion.class())
                .collect(),
        )
    }

    /// No fewer bytes than a message of values has that are together no longer than `values`; few more, as long as these
    /// are short.
    #[inline]
    pub fn longest_message(&self, values: usize) -> usize {
        self.longest_around
            .saturating_add(values)
            .min(MAX_MESSAGE_BYTES + LONGEST_CUT_NOTE)
    }

    /// Appends the message. The calling thread has seen to it that the values fit.
    pub fn write_message(&self, values: &[Value<'_>], out: &mut String) {
        let Some(parts) = &self.parts else {
            return out.push_str(self.text);
        };
        for ((literal, conversion), value) in parts.conversions.iter().zip(values) {
            out.push_str(literal);
            conversion.apply(value, out);
        }
        out.push_str(&parts.tail);
    }
}

/// No fewer bytes than a value has in a message, but for what its conversion adds.
#[inline]
pub fn longest_value(value: &Value<'_>) -> usize {
    match value {
        // a lone surrogate of two bytes becomes six
        Value::Text(text) => 3 * text.units.len() + LONGEST_CUT_NOTE,
        Value::Utf8(text) => text.len(),
        _ => LONGEST_NUMBER,
    }
}

fn parse(text: &str) -> Option<Parts> {
    let mut conversions = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let conversion = Conversion::parse(&mut rest)?;
        if conversions.len() == MAX_CONVERSIONS {
            return None;
        }
        conversions.push((std::mem::take(&mut literal), conversion));
    }
    literal.push_str(rest);
    Some(Parts {
        conversions,
        tail: literal,
    })
}

fn number(rest: &mut &str) -> Option<usize> {
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let value = if digits == 0 { 0 } else { rest[..digits].parse().ok()? };
    *rest = &rest[digits..];
    (value <= MAX_WIDTH).then_some(value)
}

impl Conversion {
    /// After the `%`.
    fn parse(rest: &mut &str) -> Option<Self> {
        let (mut left, mut zero, mut sign) = (false, false, None);
        loop {
            match rest.as_bytes().first()? {
                b'-' => left = true,
                b'0' => zero = true,
                b'+' => sign = Some('+'),
                b' ' => sign = sign.or(Some(' ')),
                _ => break,
            }
            *rest = &rest[1..];
        }
        let width = number(rest)?;
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            precision = Some(number(rest)?);
        }
        let letter = *rest.as_bytes().first()?;
        if !b"srdiuxXoeEfFgG".contains(&letter) {
            return None;
        }
        *rest = &rest[1..];
        Some(Self {
            letter,
            left,
            zero,
            sign,
            width,
            precision,
        })
    }

    fn class(&self) -> u8 {
        match self.letter {
            letter @ (b's' | b'r') => letter,
            b'd' | b'i' | b'u' => b'd',
            b'x' | b'X' | b'o' => b'x',
            _ => b'f',
        }
    }

    fn apply(&self, value: &Value<'_>, out: &mut String) {
        if matches!(self.letter, b's' | b'r') {
            return self.apply_text(value, out);
        }
        let mut digits = String::new();
        let negative = match (self.class(), value) {
            (b'f', Value::Float(real)) => {
                floats::push_formatted(*real, self.letter, self.precision, &mut digits);
                real.is_sign_negative() && !real.is_nan()
            }
            (b'f', value) => {
                let real = integer_of(value) as f64;
                floats::push_formatted(real, self.letter, self.precision, &mut digits);
                real < 0.0
            }
            (_, value) => {
                let integer = integer_of(value);
                let magnitude = integer.unsigned_abs();
                let _ = match self.letter {
                    b'x' => write!(digits, "{magnitude:x}"),
                    b'X' => write!(digits, "{magnitude:X}"),
                    b'o' => write!(digits, "{magnitude:o}"),
                    _ => write!(digits, "{magnitude}"),
                };
                let missing = self.precision.unwrap_or(0).saturating_sub(digits.len());
                digits.insert_str(0, &"0".repeat(missing));
                integer < 0
            }
        };
        let sign = if negative { Some('-') } else { self.sign };
        let missing = self.width.saturating_sub(digits.len() + usize::from(sign.is_some()));
        let (before, zeros, after) = match (self.left, self.zero) {
            (true, _) => (0, 0, missing),
            (false, true) => (0, missing, 0),
            (false, false) => (missing, 0, 0),
        };
        out.extend(std::iter::repeat_n(' ', before));
        out.extend(sign);
        out.extend(std::iter::repeat_n('0', zeros));
        out.push_str(&digits);
        out.extend(std::iter::repeat_n(' ', after));
    }

    fn apply_text(&self, value: &Value<'_>, out: &mut String) {
        if self.width == 0 && self.precision.is_none() {
            return push_str(value, out);
        }
        let mut text = String::new();
        push_str(value, &mut text);
        if let Some((end, _)) = self.precision.and_then(|precision| text.char_indices().nth(precision)) {
            text.truncate(end);
        }
        let missing = self.width.saturating_sub(text.chars().count());
        if !self.left {
            out.extend(std::iter::repeat_n(' ', missing));
        }
        out.push_str(&text);
        if self.left {
            out.extend(std::iter::repeat_n(' ', missing));
        }
    }
}

fn integer_of(value: &Value<'_>) -> i64 {
    match value {
        Value::Int(integer) => *integer,
        Value::Bool(boolean) => i64::from(*boolean),
        _ => 0,
    }
}

/// `str(value)`; also its `repr`, for the calling thread has already applied that to texts.
pub fn push_str(value: &Value<'_>, out: &mut String) {
    match value {
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(integer) => {
            let _ = write!(out, "{integer}");
        }
        Value::Float(real) => floats::push_repr(*real, out),
        Value::Text(text) => text.write_to(out),
        Value::Utf8(text) => out.push_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(template: &'static str, values: &[Value<'_>]) -> String {
        let mut out = String::new();
        Template::parse(template).write_message(values, &mut out);
        out
    }

    #[test]
    fn as_python() {
        assert_eq!(
            message("a=%d%%, b=%5.1f|", &[Value::Int(-3), Value::Float(2.25)]),
            "a=-3%, b=  2.2|"
        );
        assert_eq!(
            message("%-6d|%06d|%+d|% d", &[Value::Int(42); 4]),
            "42    |000042|+42| 42"
        );
        assert_eq!(message("%x %X %o %.4d", &[Value::Int(-255); 4]), "-ff -FF -377 -0255");
        assert_eq!(
            message("%s %r %5s", &[Value::None, Value::Bool(true), Value::Float(1.0)]),
            "None True   1.0"
        );
    }

    #[test]
    fn left_to_the_caller() {
        for template in [
            "%(name)s", "%*d", "%c", "%a", "%#x", "100%", "%ld", "%5%", "%99999d", "% ",
        ] {
            assert!(Template::parse(template).conversion_letters().is_none(), "{template}");
        }
    }
}
