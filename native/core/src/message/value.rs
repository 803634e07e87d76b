//! The values of a log call: as the calling thread left them (written by csrc/value.c), or as a block keeps them.

/// A value as it was given to the log call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text<'a>),
    Utf8(&'a str),
}

/// Code units as CPython keeps them; `whole` is the number of code points before a cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Text<'a> {
    pub units: &'a [u8],
    pub width: usize,
    pub whole: Option<u64>,
}

/// Of `enum mm_tag`, csrc/record.h.
const INT: u64 = 3;
const FLOAT: u64 = 4;
const TEXT1: u64 = 5;
const TEXT4: u64 = 7;
const CUT: u64 = 0x80;

/// The 8 bytes at an index, as the hot path writes them.
pub fn word(bytes: &[u8], index: usize) -> u64 {
    let start = index * 8;
    bytes[start..start + 8].try_into().map_or(0, u64::from_le_bytes)
}

impl<'a> Value<'a> {
    /// The first value of a run of them, which is cut off. None: there is no whole value.
    #[inline]
    pub fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let head = word(rest.get(..8)?, 0);
        let (value, size) = match head & 0x7f {
            1 => (Self::Bool(false), 8),
            2 => (Self::Bool(true), 8),
            INT => (Self::Int(word(rest.get(..16)?, 1) as i64), 16),
            FLOAT => (Self::Float(f64::from_bits(word(rest.get(..16)?, 1))), 16),
            tag @ TEXT1..=TEXT4 => {
                let width = 1 << (tag - TEXT1);
                let (whole, offset) = if head & CUT == 0 {
                    (None, 8)
                } else {
                    (Some(word(rest.get(..16)?, 1)), 16)
                };
                let bytes = (head >> 8) as usize * width;
                let text = Text {
                    units: rest.get(offset..offset + bytes)?,
                    width,
                    whole,
                };
                (Self::Text(text), offset + bytes.next_multiple_of(8))
            }
            _ => (Self::None, 8),
        };
        *rest = rest.get(size..)?;
        Some(value)
    }
}

/// A value told by its first word or two: those that most log calls have.
pub enum Plain<'a> {
    Int(u64),
    /// Its bits.
    Float(u64),
    Narrow(Narrow<'a>),
    /// Any other, which is left where it is.
    Other,
}

/// A whole text of Latin-1 units.
#[derive(Clone, Copy)]
pub struct Narrow<'a> {
    pub units: &'a [u8],
    /// The same. There may be anything behind the text in the last one.
    words: &'a [[u8; 8]],
}

impl<'a> Narrow<'a> {
    /// The units, eight at a time; the last word is filled up with zeros.
    #[inline(always)]
    pub fn words(self) -> impl Iterator<Item = u64> + use<'a> {
        let behind = 8 * (self.units.len().wrapping_neg() & 7);
        let (last, others) = match self.words.split_last() {
            Some((last, others)) => (Some(u64::from_le_bytes(*last) << behind >> behind), others),
            None => (None, self.words),
        };
        others.iter().map(|word| u64::from_le_bytes(*word)).chain(last)
    }
}

impl<'a> Plain<'a> {
    /// What `Value::take` would take.
    #[inline(always)]
    pub fn take(rest: &mut &'a [[u8; 8]]) -> Self {
        let [head, after @ ..] = *rest else { return Self::Other };
        let head = u64::from_le_bytes(*head);
        if head & 0xff == TEXT1 {
            let length = (head >> 8) as usize;
            let Some((words, after)) = after.split_at_checked(length.div_ceil(8)) else {
                return Self::Other;
            };
            *rest = after;
            return Self::Narrow(Narrow {
                units: &words.as_flattened()[..length],
                words,
            });
        }
        let [bits, after @ ..] = after else { return Self::Other };
        let bits = u64::from_le_bytes(*bits);
        let value = match head & 0xff {
            INT => Self::Int(bits),
            FLOAT => Self::Float(bits),
            _ => return Self::Other,
        };
        *rest = after;
        value
    }
}

impl Text<'_> {
    /// Appends the text as UTF-8. A lone surrogate becomes `\udc80`, a cut is told.
    pub fn write_to(&self, out: &mut String) {
        match self.width {
            // SAFETY: ASCII is UTF-8.
            1 if self.units.is_ascii() => out.push_str(unsafe { std::str::from_utf8_unchecked(self.units) }),
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
