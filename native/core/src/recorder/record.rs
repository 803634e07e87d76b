//! Reads the records that the calling threads leave (layout: csrc/record.h). Trusts them: they come from this process.

use super::descriptor::Descriptor;

pub const SPAN_BEGIN: u8 = 0;
pub const SPAN_END: u8 = 1;
pub const METRIC_INT: u8 = 2;
pub const METRIC_FLOAT: u8 = 3;
pub const LOG_LITERAL: u8 = 4;
pub const LOG_VALUES: u8 = 5;
pub const LOG_TEXT: u8 = 6;
pub const ASYNC_BEGIN: u8 = 7;
pub const ASYNC_END: u8 = 8;
pub const KINDS: u8 = 9;

const HEAD: usize = 16;

/// One event, still in the units of the calling thread.
pub struct Record<'a> {
    pub ticks: u64,
    pub kind: u8,
    pub descriptor: &'static Descriptor,
    body: &'a [u8],
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let start = index * 8;
    bytes[start..start + 8].try_into().map_or(0, u64::from_le_bytes)
}

impl<'a> Record<'a> {
    /// The first record of a run, and what follows it.
    pub fn split(run: &'a [u8]) -> Option<(Self, &'a [u8])> {
        if run.len() < HEAD {
            return None;
        }
        let (ticks, tagged) = (word(run, 0), word(run, 1));
        let kind = (tagged & 15) as u8;
        let size = match kind {
            SPAN_BEGIN | SPAN_END | LOG_LITERAL => HEAD,
            METRIC_INT | METRIC_FLOAT => HEAD + 8,
            LOG_VALUES | LOG_TEXT => word(run, 2) as u32 as usize,
            _ => HEAD + 24,
        };
        let record = Self {
            ticks,
            kind,
            // SAFETY: the hot path writes only addresses of immortal descriptors, aligned to 16 bytes.
            descriptor: unsafe { &*((tagged & !15) as usize as *const Descriptor) },
            body: run.get(HEAD..size)?,
        };
        Some((record, &run[size..]))
    }

    /// The value's bits of a metric; span id, parent and depth of an async event.
    pub fn word(&self, index: usize) -> u64 {
        word(self.body, index)
    }

    /// Values and properties (name, value, name, value …) of a log event.
    pub fn values(&self) -> (Vec<Value<'a>>, Vec<Value<'a>>) {
        let head = word(self.body, 0);
        let mut rest = &self.body[8..];
        let mut values = Vec::new();
        let mut properties = Vec::new();
        for _ in 0..(head >> 32) & 0xffff {
            values.push(Value::take(&mut rest));
        }
        for _ in 0..2 * (head >> 48) {
            properties.push(Value::take(&mut rest));
        }
        (values, properties)
    }
}

/// A value as it was given to the log call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text<'a>),
}

/// Code units as CPython keeps them; `whole` is the number of code points before a cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Text<'a> {
    pub units: &'a [u8],
    pub width: usize,
    pub whole: Option<u64>,
}

const CUT: u64 = 0x80;

impl<'a> Value<'a> {
    fn take(rest: &mut &'a [u8]) -> Self {
        let head = word(rest, 0);
        let (value, size) = match head & 0x7f {
            1 => (Self::Bool(false), 8),
            2 => (Self::Bool(true), 8),
            3 => (Self::Int(word(rest, 1) as i64), 16),
            4 => (Self::Float(f64::from_bits(word(rest, 1))), 16),
            tag @ 5..=7 => {
                let width = 1 << (tag - 5);
                let (whole, offset) = if head & CUT == 0 {
                    (None, 8)
                } else {
                    (Some(word(rest, 1)), 16)
                };
                let bytes = (head >> 8) as usize * width;
                let text = Text {
                    units: &rest[offset..offset + bytes],
                    width,
                    whole,
                };
                (Self::Text(text), offset + bytes.next_multiple_of(8))
            }
            _ => (Self::None, 8),
        };
        *rest = &rest[size..];
        value
    }
}

impl Text<'_> {
    /// Appends the text as UTF-8. A lone surrogate becomes `\udc80`, a cut is told.
    pub fn write_to(&self, out: &mut String) {
        match self.width {
            1 if self.units.is_ascii() => out.push_str(&String::from_utf8_lossy(self.units)),
            1 => out.extend(self.units.iter().map(|&unit| char::from(unit))),
            2 => {
                for unit in self.units.chunks_exact(2) {
                    push_code_point(u32::from(u16::from_le_bytes([unit[0], unit[1]])), out);
                }
            }
            _ => {
                for unit in self.units.chunks_exact(4) {
                    push_code_point(u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]), out);
                }
            }
        }
        if let Some(whole) = self.whole {
            out.push_str(&format!("… [cut: {whole} characters]"));
        }
    }
}

fn push_code_point(code_point: u32, out: &mut String) {
    match char::from_u32(code_point) {
        Some(character) => out.push(character),
        None => out.push_str(&format!("\\u{code_point:04x}")),
    }
}
