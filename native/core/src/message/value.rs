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

/// Of `enum mm_code`, csrc/record.h.
const INT: u64 = 3;
const FLOAT: u64 = 4;
const TEXT1: u64 = 5;
const TEXT4: u64 = 7;
const CUT: u64 = 0x40;
/// The length is the rest of the code.
const SHORT_TEXT: u64 = 0x80;

/// The 8 bytes at an index, as the hot path writes them.
pub fn word(bytes: &[u8], index: usize) -> u64 {
    let start = index * 8;
    bytes[start..start + 8].try_into().map_or(0, u64::from_le_bytes)
}

impl<'a> Value<'a> {
    /// The first value of a run of them, which is cut off. None: there is no whole value.
    #[inline]
    pub fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let (mut words, _) = rest.as_chunks();
        if let Some(value) = Plain::take(&mut words).value() {
            *rest = words.as_flattened();
            return Some(value);
        }
        let head = word(rest.get(..8)?, 0);
        let (value, size) = match head & 0xff & !CUT {
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
            INT | FLOAT => return None,
            _ => (Self::None, 8), // only a damaged file has such a code
        };
        *rest = rest.get(size..)?;
        Some(value)
    }
}

/// A value told by its first word or two, or by its code: those that most log calls have.
#[derive(Clone, Copy)]
pub enum Plain<'a> {
    Int(u64),
    /// Its bits.
    Float(u64),
    Narrow(Narrow<'a>),
    /// Nothing, or a boolean.
    Bare(Value<'static>),
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
        let mut behind = after;
        let value = match head & 0xff {
            TEXT1 => Self::take_text((head >> 8) as usize, &mut behind),
            code => Self::take_coded(code, &mut behind),
        };
        if !matches!(value, Self::Other) {
            *rest = behind;
        }
        value
    }

    /// The value that a code and the first words of the rest make, which are cut off. Other: there is no whole one.
    #[inline(always)]
    pub fn take_coded(code: u64, rest: &mut &'a [[u8; 8]]) -> Self {
        match code {
            SHORT_TEXT.. => Self::take_text((code & !SHORT_TEXT) as usize, rest),
            INT => Self::take_word(rest).map_or(Self::Other, Self::Int),
            FLOAT => Self::take_word(rest).map_or(Self::Other, Self::Float),
            0 => Self::Bare(Value::None),
            1 => Self::Bare(Value::Bool(false)),
            2 => Self::Bare(Value::Bool(true)),
            _ => Self::Other,
        }
    }

    #[inline(always)]
    fn take_text(length: usize, rest: &mut &'a [[u8; 8]]) -> Self {
        let Some((words, after)) = rest.split_at_checked(length.div_ceil(8)) else {
            return Self::Other;
        };
        *rest = after;
        Self::Narrow(Narrow {
            units: &words.as_flattened()[..length],
            words,
        })
    }

    #[inline(always)]
    fn take_word(rest: &mut &'a [[u8; 8]]) -> Option<u64> {
        let [word, after @ ..] = *rest else { return None };
        *rest = after;
        Some(u64::from_le_bytes(*word))
    }

    /// None: it is another.
    pub fn value(self) -> Option<Value<'a>> {
        Some(match self {
            Self::Int(bits) => Value::Int(bits as i64),
            Self::Float(bits) => Value::Float(f64::from_bits(bits)),
            Self::Narrow(text) => Value::Text(Text {
                units: text.units,
                width: 1,
                whole: None,
            }),
            Self::Bare(value) => value,
            Self::Other => return None,
        })
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
