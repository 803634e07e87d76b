//! Floats as Python writes them: `repr`, `%e`, `%f`, `%g`.

use std::fmt::Write;

/// Digits without a point, and the exponent of the first digit, of a finite non-negative float in `{:e}` form.
fn digits_and_exponent(scientific: &str) -> (String, i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

fn push_exponent(exponent: i32, upper: bool, out: &mut String) {
    out.push(if upper { 'E' } else { 'e' });
    out.push(if exponent < 0 { '-' } else { '+' });
    let _ = write!(out, "{:02}", exponent.unsigned_abs());
}

fn push_special(value: f64, upper: bool, out: &mut String) {
    let text = if value.is_nan() { "nan" } else { "inf" };
    if upper {
        out.push_str(&text.to_ascii_uppercase());
    } else {
        out.push_str(text);
    }
}

/// `repr(value)`.
pub fn push_repr(value: f64, out: &mut String) {
    if value.is_sign_negative() && !value.is_nan() {
        out.push('-');
    }
    let value = value.abs();
    if !value.is_finite() {
        return push_special(value, false, out);
    }
    let (digits, exponent) = digits_and_exponent(&format!("{value:e}"));
    if (-4..16).contains(&exponent) {
        let _ = write!(out, "{value}");
        if exponent >= digits.len() as i32 - 1 {
            out.push_str(".0");
        }
        return;
    }
    out.push_str(&digits[..1]);
    if digits.len() > 1 {
        out.push('.');
        out.push_str(&digits[1..]);
    }
    push_exponent(exponent, false, out);
}

/// The magnitude of `value` by one of the letters e E f F g G; the sign is the caller's.
pub fn push_formatted(value: f64, letter: u8, precision: Option<usize>, out: &mut String) {
    let value = value.abs();
    let upper = letter.is_ascii_uppercase();
    if !value.is_finite() {
        return push_special(value, upper, out);
    }
    let precision = precision.unwrap_or(6);
    match letter.to_ascii_lowercase() {
        b'f' => {
            let _ = write!(out, "{value:.precision$}");
        }
        b'e' => {
            let text = format!("{value:.precision$e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            out.push_str(mantissa);
            push_exponent(exponent.parse().unwrap_or(0), upper, out);
        }
        _ => push_general(value, precision.max(1), upper, out),
    }
}

fn push_general(value: f64, significant: usize, upper: bool, out: &mut String) {
    let (digits, exponent) = digits_and_exponent(&format!("{value:.*e}", significant - 1));
    let kept = digits.trim_end_matches('0');
    if exponent < -4 || exponent >= significant as i32 {
        let kept = if kept.is_empty() { "0" } else { kept };
        out.push_str(&kept[..1]);
        if kept.len() > 1 {
            out.push('.');
            out.push_str(&kept[1..]);
        }
        return push_exponent(exponent, upper, out);
    }
    let text = format!("{value:.*}", (significant as i32 - 1 - exponent) as usize);
    if text.contains('.') {
        out.push_str(text.trim_end_matches('0').trim_end_matches('.'));
    } else {
        out.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repr(value: f64) -> String {
        let mut out = String::new();
        push_repr(value, &mut out);
        out
    }

    fn formatted(value: f64, letter: u8, precision: Option<usize>) -> String {
        let mut out = String::new();
        push_formatted(value, letter, precision, &mut out);
        out
    }

    #[test]
    fn repr_as_python() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (100.0, "100.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.0e-100, "1e-100"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(repr(value), text);
        }
    }

    #[test]
    fn rounding_is_half_to_even_on_exact_ties() {
        assert_eq!(formatted(0.5, b'f', Some(0)), "0");
        assert_eq!(formatted(1.5, b'f', Some(0)), "2");
        assert_eq!(formatted(2.5, b'f', Some(0)), "2");
        assert_eq!(formatted(0.125, b'f', Some(2)), "0.12");
        assert_eq!(formatted(2.5, b'e', Some(0)), "2e+00");
        assert_eq!(formatted(0.0001, b'g', None), "0.0001");
        assert_eq!(formatted(1e6, b'g', None), "1e+06");
        assert_eq!(formatted(999999.5, b'g', None), "1e+06");
        assert_eq!(formatted(0.0, b'g', None), "0");
        assert_eq!(formatted(f64::INFINITY, b'F', None), "INF");
    }
}
