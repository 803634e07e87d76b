//! Columns of floats: where all of a group are decimals of few digits, as the integers that they are times a power of
//! ten; else as their bits. Both ways every bit comes back: NaNs with payloads, infinities and -0.0, too.
//!
//! A float is the decimal `n / 10^k` when the division of the two floats gives exactly its bits.

use super::super::error::{wire_error, Result};
use super::body::{BodyReader, BodyWriter};
use super::integers::{groups_until, read_groups, Groups, Integers, Sign};

const BITS: u8 = 0xff;
const MAX_EXPONENT: usize = 15;
const POWERS: [f64; MAX_EXPONENT + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];
/// Integers above would not all be floats once they are rounded by `ROUNDER`.
const LARGEST: f64 = (1_u64 << 51) as f64;
/// Added to a smaller float and taken off again, it rounds to an integer.
const ROUNDER: f64 = (3_u64 << 51) as f64;

/// `value * 10^exponent` if that is an integer whose quotient is `value` again.
#[inline]
fn scaled(value: f64, exponent: usize) -> Option<i64> {
    let rounded = value * POWERS[exponent] + ROUNDER - ROUNDER;
    if rounded.abs() >= LARGEST {
        return None;
    }
    let integer = rounded as i64; // 0 for NaN, which it is not equal to
    ((integer as f64 / POWERS[exponent]).to_bits() == value.to_bits()).then_some(integer)
}

/// One group: its exponent (none: bits), and where floats stand that are no such decimals.
#[derive(Default)]
struct Choice {
    exponent: Option<usize>,
    exceptions: Vec<(usize, u64)>,
}

impl Choice {
    /// Appends the integers of `floats`, or their bits.
    fn make(floats: &[u64], to: &mut Vec<u64>) -> Self {
        let start = to.len();
        let mut exponent = 0;
        let mut largest = 0;
        let mut exceptions = Vec::new();
        for (index, &bits) in floats.iter().enumerate() {
            let value = f64::from_bits(bits);
            let mut found = scaled(value, exponent);
            if found.is_none() {
                // as far as the integers before can be scaled, too
                let better = (exponent + 1..=MAX_EXPONENT)
                    .take_while(|k| largest as f64 * POWERS[k - exponent] < LARGEST)
                    .find_map(|k| scaled(value, k).map(|integer| (k, integer)));
                if let Some((k, integer)) = better {
                    largest *= POWERS[k - exponent] as u64;
                    let factor = POWERS[k - exponent] as u64;
                    for earlier in &mut to[start..] {
                        *earlier = earlier.wrapping_mul(factor);
                    }
                    exponent = k;
                    found = Some(integer);
                }
            }
            match found {
                Some(integer) => {
                    largest = largest.max(integer.unsigned_abs());
                    to.push(integer as u64);
                }
                None => {
                    exceptions.push((index, bits));
                    to.push(to[start..].last().copied().unwrap_or(0));
                }
            }
            if exceptions.len() > 2 + index / 16 {
                break;
            }
        }
        if to.len() - start == floats.len() && exceptions.len() <= floats.len() / 4 {
            let exponent = Some(exponent);
            return Self { exponent, exceptions };
        }
        to.truncate(start);
        to.extend_from_slice(floats);
        Self::default()
    }

    fn write(&self, body: &mut BodyWriter) {
        let Some(exponent) = self.exponent else {
            return body.byte(BITS);
        };
        body.byte(exponent as u8);
        body.count(self.exceptions.len());
        let mut after = 0;
        for &(index, bits) in &self.exceptions {
            body.count(index - after);
            body.column(8, |bytes| bytes.extend_from_slice(&bits.to_le_bytes()));
            after = index + 1;
        }
    }
}

/// The floats are bits; no group is empty.
pub fn write_floats(groups: &[&[u64]], body: &mut BodyWriter) {
    let mut integers = body.numbers(0);
    let mut ends = Vec::with_capacity(groups.len());
    for group in groups {
        Choice::make(group, &mut integers).write(body);
        ends.push(integers.len());
    }
    Groups::choose(groups_until(&integers, &ends), Sign::Signed).write(body);
    body.give_back(integers);
}

/// Gives the bits of the floats of one group.
#[derive(Clone, Default)]
pub struct Floats<'a> {
    integers: Integers<'a>,
    /// None: the integers are the bits.
    power: Option<f64>,
    exceptions: Exceptions<'a>,
}

/// Floats that are no decimals, with the number of values before each.
#[derive(Clone)]
struct Exceptions<'a> {
    rest: BodyReader<'a>,
    left: usize,
    /// How many other values come before the next one.
    before: usize,
}

impl Default for Exceptions<'_> {
    fn default() -> Self {
        Self {
            rest: BodyReader::new(&[]),
            left: 0,
            before: 0,
        }
    }
}

impl<'a> Exceptions<'a> {
    fn read(length: usize, body: &mut BodyReader<'a>) -> Result<Self> {
        let left = body.count(length, "exceptions")?;
        let mut exceptions = Self {
            rest: body.clone(),
            left,
            before: 0,
        };
        for _ in 0..left {
            body.varint()?;
            body.take(8)?;
        }
        exceptions.advance(length)?;
        Ok(exceptions)
    }

    fn advance(&mut self, length: usize) -> Result<()> {
        if self.left > 0 {
            self.before = self.rest.count(length, "values before an exception")?;
        }
        Ok(())
    }

    /// The exception in the place of the next value, if there is one.
    #[inline]
    fn next(&mut self) -> Result<Option<u64>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.before > 0 {
            self.before -= 1;
            return Ok(None);
        }
        let bytes = self.rest.take(8)?;
        self.left -= 1;
        self.advance(usize::MAX)?;
        Ok(bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)))
    }
}

impl Floats<'_> {
    #[inline]
    pub fn next(&mut self) -> Result<u64> {
        let integer = self.integers.next()?;
        match self.power {
            None => Ok(integer),
            Some(power) => Ok(match self.exceptions.next()? {
                Some(bits) => bits,
                None => (integer as i64 as f64 / power).to_bits(),
            }),
        }
    }
}

/// Reads groups of the lengths given.
pub fn read_floats<'a>(lengths: &[usize], body: &mut BodyReader<'a>) -> Result<Vec<Floats<'a>>> {
    let mut groups = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let mut group = Floats::default();
        if length > 0 {
            match body.byte()? {
                BITS => {}
                exponent => match POWERS.get(usize::from(exponent)) {
                    Some(&power) => {
                        group.power = Some(power);
                        group.exceptions = Exceptions::read(length, body)?;
                    }
                    None => return Err(wire_error!("floats with {exponent} decimals")),
                },
            }
        }
        groups.push(group);
    }
    for (group, integers) in groups.iter_mut().zip(read_groups(lengths, body)?) {
        group.integers = integers;
    }
    Ok(groups)
}
