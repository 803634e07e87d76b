//! JSON as text: a lenient parser into a value tree, and the compact text of JSONB values.
//! The parser must never follow a text deeper than `MAX_DEPTH`: texts come from log messages.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::jsonb::{Error, Number, Tree, Value};

/// Containers within containers, in texts and in JSONB bytes.
pub const MAX_DEPTH: usize = 128;

/// The value of a JSON text. More than the standard is accepted: numbers with a leading `+`, with leading zeros, in
/// hexadecimal or with nothing on one side of the point, `NaN` and `Infinity`, empty array elements (they are null),
/// and control characters within strings.
pub fn parse(text: &str) -> Result<Tree, Error> {
    let mut parser = Parser::new(text);
    let value = parser.value(0)?;
    parser.end()?;
    Ok(value)
}

/// The value at the start of a text, and the bytes that it takes there.
pub fn parse_prefix(text: &str) -> Result<(Tree, usize), Error> {
    let mut parser = Parser::new(text);
    let value = parser.value(0)?;
    Ok((value, parser.at))
}

/// Reads a text token by token.
pub struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Fails when more than space is left.
    pub fn end(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.error("text after the value"));
        }
        Ok(())
    }

    pub fn error(&self, what: &str) -> Error {
        format!("json: {what} at byte {}", self.at)
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | b'\x0C')) {
            self.at += 1;
        }
    }

    pub fn take(&mut self, token: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(token.as_bytes());
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Tree, Error> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        self.skip_space();
        match self.peek() {
            Some(b'"') => Ok(Tree::String(self.string()?)),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'+' | b'-' | b'.' | b'0'..=b'9' | b'N' | b'I') => Ok(Tree::Number(self.number()?)),
            Some(b'n') if self.take("null") => Ok(Tree::Null),
            Some(b't') if self.take("true") => Ok(Tree::Bool(true)),
            Some(b'f') if self.take("false") => Ok(Tree::Bool(false)),
            Some(_) => Err(self.error("no value")),
            None => Err(self.error("end of text where a value is expected")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Tree, Error> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Tree::Array(items));
        }
        loop {
            self.skip_space();
            match self.peek() {
                Some(b',' | b']') => items.push(Tree::Null),
                _ => items.push(self.value(depth + 1)?),
            }
            self.skip_space();
            if self.take("]") {
                return Ok(Tree::Array(items));
            }
            if !self.take(",") {
                return Err(self.error("neither comma nor bracket after an array element"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Tree, Error> {
        self.at += 1;
        let mut members = BTreeMap::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Tree::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.error("no string where a key is expected"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(":") {
                return Err(self.error("no colon after a key"));
            }
            let value = self.value(depth + 1)?;
            members.insert(key, value);
            self.skip_space();
            if self.take("}") {
                return Ok(Tree::Object(members));
            }
            if !self.take(",") {
                return Err(self.error("neither comma nor brace after a member"));
            }
        }
    }

    /// The string that begins here, at its quote.
    pub fn string(&mut self) -> Result<String, Error> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(special) = rest.find(['"', '\\']) else {
                return Err(self.error("string without an end"));
            };
            out.push_str(&rest[..special]);
            self.at += special + 1;
            if rest.as_bytes()[special] == b'"' {
                return Ok(out);
            }
            let escape = self.peek();
            self.at += 1;
            out.push(match escape {
                Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                Some(b'u') => self.unicode_escape()?,
                _ => return Err(self.error("unknown escape")),
            });
        }
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let unit = self.hex4()?;
        let code = match unit {
            0xD800..=0xDBFF => {
                if !self.take("\\u") {
                    return Err(self.error("half of a surrogate pair"));
                }
                let low = self.hex4()?;
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(self.error("half of a surrogate pair"));
                }
                0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        // from_str_radix takes a sign, which is no digit here
        if digits.len() < 4 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(self.error("no four hexadecimal digits"));
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|error| self.error(&error.to_string()))
    }

    pub fn number(&mut self) -> Result<Number, Error> {
        let negative = self.take("-");
        if !negative {
            self.take("+");
        }
        let signed = |value: f64| Number::Float(if negative { -value } else { value });
        if self.take("NaN") {
            return Ok(Number::Float(f64::NAN));
        }
        if self.take("Infinity") {
            return Ok(signed(f64::INFINITY));
        }
        if self.take("0x") || self.take("0X") {
            let digits = self.run(|byte| byte.is_ascii_hexdigit());
            if digits.is_empty() {
                return Err(self.error("no hexadecimal digit"));
            }
            let integer = u64::from_str_radix(digits, 16)
                .ok()
                .and_then(|value| integer(negative, value));
            return Ok(integer.unwrap_or_else(|| {
                let digit = |byte: u8| f64::from(char::from(byte).to_digit(16).unwrap_or(0));
                signed(digits.bytes().fold(0.0, |value, byte| value * 16.0 + digit(byte)))
            }));
        }
        let start = self.at;
        let whole = self.run(|byte| byte.is_ascii_digit());
        let mut is_integer = true;
        let mut digits = whole.len();
        if self.take(".") {
            is_integer = false;
            digits += self.run(|byte| byte.is_ascii_digit()).len();
        }
        if digits == 0 {
            return Err(self.error("number without a digit"));
        }
        if self.take("e") || self.take("E") {
            is_integer = false;
            let _sign = self.take("-") || self.take("+");
            if self.run(|byte| byte.is_ascii_digit()).is_empty() {
                return Err(self.error("exponent without a digit"));
            }
        }
        if is_integer {
            if let Some(number) = whole.parse::<u64>().ok().and_then(|value| integer(negative, value)) {
                return Ok(number);
            }
        }
        let value: f64 = self.text[start..self.at]
            .parse()
            .map_err(|_| self.error("unreadable number"))?;
        Ok(signed(value))
    }

    fn run(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&accept) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }
}

fn integer(negative: bool, magnitude: u64) -> Option<Number> {
    if negative {
        0_i64.checked_sub_unsigned(magnitude).map(Number::Signed)
    } else {
        Some(Number::Unsigned(magnitude))
    }
}

/// Appends the compact JSON text of a value, keys in stored order. Numbers that JSON lacks are written as `NaN`,
/// `Infinity` and `-Infinity`, which `parse` reads back.
pub fn format(value: &Value<'_>, out: &mut String) -> Result<(), Error> {
    format_at(value, out, 0)
}

fn format_at(value: &Value<'_>, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err("jsonb: nested too deep".to_string());
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => format_number(*number, out),
        Value::String(text) => format_string(text, out),
        Value::Array(array) => {
            out.push('[');
            for (index, item) in array.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                format_at(&item?, out, depth + 1)?;
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (index, member) in object.iter()?.enumerate() {
                let (key, member) = member?;
                if index > 0 {
                    out.push(',');
                }
                format_string(key, out);
                out.push(':');
                format_at(&member, out, depth + 1)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

pub fn format_number(number: Number, out: &mut String) {
    // writing to a String can't fail
    let _ = match number {
        Number::Signed(value) => write!(out, "{value}"),
        Number::Unsigned(value) => write!(out, "{value}"),
        Number::Float(f64::INFINITY) => write!(out, "Infinity"),
        Number::Float(f64::NEG_INFINITY) => write!(out, "-Infinity"),
        // the debug form is the shortest that reads back, and keeps the point that tells it from an integer
        Number::Float(value) => write!(out, "{value:?}"),
    };
}

pub fn format_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
