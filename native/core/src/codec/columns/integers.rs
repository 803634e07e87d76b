//! Columns of integers: what is left of each after a prediction, cut into planes of bytes.
//!
//! A column has one or more groups; each group is either `base + residual` per value, or `previous + base + residual`,
//! whichever makes the residuals smaller. Plane 0 has the lowest byte of every residual, plane 1 the next one, and so
//! on: bytes of one kind stand together, and bytes that are always zero are not there at all. The planes of groups with
//! the same number of planes are joined, so that many small groups compress as one.

use super::super::error::{wire_error, Result};
use super::body::{BodyReader, BodyWriter};

const PLANES: u8 = 0x0f;
const DELTA: u8 = 0x10;
const BASE: u8 = 0x20;
const MAX_PLANES: usize = 8;
/// So many values of each stretch tell which prediction is better.
const SAMPLE: usize = 64;
const STRETCH: usize = 512;
/// What is left of so many values is cut into planes while it is in the processor's first cache.
const TOGETHER: usize = 512;

/// How the values of a group are made of its residuals.
#[derive(Clone, Copy, Default)]
struct Head {
    planes: usize,
    is_delta: bool,
    base: u64,
    /// What the first value is predicted from when the others are from their predecessors.
    start: u64,
}

/// The planes of groups with the same number of them.
struct Planes<'c> {
    /// One behind the other.
    columns: &'c mut [u8],
    /// Of each.
    length: usize,
    /// So many values have their bytes in each.
    written: usize,
}

/// Are the values of a column numbers below zero, too?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Unsigned,
    Signed,
}

impl Sign {
    /// Maps to integers of the same order.
    #[inline]
    fn order(self, value: u64) -> i64 {
        match self {
            Self::Signed => value as i64,
            Self::Unsigned => (value ^ 1 << 63) as i64,
        }
    }

    /// The opposite of `order`.
    fn value(self, order: i64) -> u64 {
        match self {
            Self::Signed => order as u64,
            Self::Unsigned => order as u64 ^ 1 << 63,
        }
    }
}

/// What a column in the making is kept as: the fewer bytes, the more of it stays in the processor's caches.
pub trait Number: Copy {
    fn wide(self) -> u64;

    /// The smallest and the largest of values of which there are some.
    fn extremes(values: &[Self], sign: Sign) -> (u64, u64);
}

macro_rules! narrow_number {
    ($narrow:ty) => {
        impl Number for $narrow {
            #[inline]
            fn wide(self) -> u64 {
                self.into()
            }

            #[inline(always)]
            fn extremes(values: &[Self], _: Sign) -> (u64, u64) {
                let smallest = values
                    .iter()
                    .fold(Self::MAX, |smallest, &value| smallest.min(value));
                let largest = values.iter().fold(0, |largest, &value| largest.max(value));
                (smallest.into(), largest.into())
            }
        }
    };
}

narrow_number!(u8);
narrow_number!(u32);

impl Number for u64 {
    #[inline]
    fn wide(self) -> u64 {
        self
    }

    #[inline(always)]
    fn extremes(values: &[Self], sign: Sign) -> (u64, u64) {
        let orders = values.iter().map(|&value| sign.order(value));
        let (smallest, largest) = orders.fold((i64::MAX, i64::MIN), |(smallest, largest), order| {
            (smallest.min(order), largest.max(order))
        });
        (sign.value(smallest), sign.value(largest))
    }
}

#[inline(always)]
fn bits(value: u64) -> u64 {
    u64::from(64 - value.leading_zeros())
}

#[inline(always)]
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline(always)]
fn planes_of(largest: u64) -> usize {
    bits(largest).div_ceil(8) as usize
}

impl Head {
    /// The better of the two predictions for `values`, and about how many bits the group will have.
    #[inline(always)]
    fn choose<N: Number>(values: &[N], sign: Sign) -> (Self, u64) {
        let Some(first) = values.first().map(|first| first.wide()) else {
            return (Self::default(), 0);
        };
        let (low, high) = N::extremes(values, sign);
        if low == high {
            let same = Self {
                base: first,
                ..Self::default()
            };
            return (same, 16);
        }
        // A base that saves no plane would only cost its bytes.
        let is_free = sign.order(low) >= sign.order(0) && planes_of(high) == planes_of(high.wrapping_sub(low));
        let base = if is_free { 0 } else { low };
        let plain = Self {
            planes: planes_of(high.wrapping_sub(base)),
            is_delta: false,
            base,
            start: 0,
        };
        if values.len() < 3 {
            return (plain, 8 * (2 + (plain.planes * values.len()) as u64));
        }
        let (mut plain_bits, mut delta_bits, mut looked_at) = (0, 0, 0);
        for stretch in values.chunks(STRETCH) {
            let sample = &stretch[..stretch.len().min(SAMPLE)];
            let mut previous = sample[0].wide();
            for value in sample.iter().map(|value| value.wide()) {
                plain_bits += bits(value.wrapping_sub(base));
                delta_bits += bits(zigzag(value.wrapping_sub(previous) as i64));
                previous = value;
            }
            looked_at += sample.len() as u64;
        }
        let plain_bits = 16 + bits(zigzag(base as i64)) + plain_bits * values.len() as u64 / looked_at;
        let head_bits = 32 + bits(zigzag(first as i64));
        let delta_bits = head_bits + delta_bits * values.len() as u64 / looked_at;
        if delta_bits >= plain_bits {
            return (plain, plain_bits);
        }
        let steps = values
            .windows(2)
            .map(|pair| pair[1].wide().wrapping_sub(pair[0].wide()) as i64);
        let (smallest, largest) = steps.fold((i64::MAX, i64::MIN), |(smallest, largest), step| {
            (smallest.min(step), largest.max(step))
        });
        let base = centred(smallest, largest);
        let delta = Self {
            planes: planes_of(largest.wrapping_sub(base) as u64),
            is_delta: true,
            base: base as u64,
            start: first.wrapping_sub(base as u64),
        };
        (delta, if delta.planes == 0 { head_bits } else { delta_bits })
    }

    /// Puts down what is left of each of the values, which follow `previous`; gives the last of them.
    #[inline(always)]
    fn residuals<N: Number>(&self, values: &[N], previous: u64, to: &mut [u64]) -> u64 {
        let values = values.iter().map(|value| value.wide());
        if !self.is_delta {
            values
                .zip(to)
                .for_each(|(value, to)| *to = value.wrapping_sub(self.base));
            return previous;
        }
        values.zip(to).fold(previous, |previous, (value, to)| {
            *to = value.wrapping_sub(previous).wrapping_sub(self.base);
            value
        })
    }

    /// Writes the planes of `values` behind those that are there. `room` is memory that is used again.
    #[inline(always)]
    fn write_planes<N: Number>(&self, values: &[N], to: &mut Planes<'_>, room: &mut [u64; TOGETHER]) {
        let mut previous = self.start;
        for values in values.chunks(TOGETHER) {
            let residuals = &mut room[..values.len()];
            previous = self.residuals(values, previous, residuals);
            for (plane, column) in to.columns.chunks_exact_mut(to.length).enumerate() {
                let bytes = column[to.written..to.written + residuals.len()].iter_mut();
                bytes
                    .zip(&*residuals)
                    .for_each(|(byte, residual)| *byte = (residual >> (8 * plane)) as u8);
            }
            to.written += values.len();
        }
    }

    fn write(&self, body: &mut BodyWriter) {
        let mut byte = self.planes as u8;
        if self.is_delta {
            byte |= DELTA;
        }
        if self.base != 0 {
            byte |= BASE;
        }
        body.byte(byte);
        if self.base != 0 {
            body.signed_varint(self.base as i64);
        }
        if self.is_delta {
            body.signed_varint(self.start as i64);
        }
    }

    fn read(body: &mut BodyReader<'_>) -> Result<Self> {
        let byte = body.byte()?;
        let planes = usize::from(byte & PLANES);
        if planes > MAX_PLANES || byte & !(PLANES | DELTA | BASE) != 0 {
            return Err(wire_error!("{byte:#04x} begins no group of integers"));
        }
        let base = if byte & BASE == 0 {
            0
        } else {
            body.signed_varint()? as u64
        };
        let is_delta = byte & DELTA != 0;
        let start = if is_delta { body.signed_varint()? as u64 } else { 0 };
        Ok(Self {
            planes,
            is_delta,
            base,
            start,
        })
    }
}

/// The loops over all values, with as wide vectors as the processor has: columns of logs take a sixth of their time.
mod vectors {
    use super::{Head, Number, Planes, Sign, TOGETHER};

    macro_rules! with_wide_vectors {
        ($(fn $name:ident<N: Number>($($argument:ident: $kind:ty),*) -> $result:ty { $plain:expr })*) => {
            $(pub fn $name<N: Number>($($argument: $kind),*) -> $result {
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
                    fn wide<N: Number>($($argument: $kind),*) -> $result {
                        $plain
                    }
                    if are_wide() {
                        // SAFETY: the processor has what the function is compiled for.
                        return unsafe { wide($($argument),*) };
                    }
                }
                $plain
            })*
        };
    }

    with_wide_vectors! {
        fn choose<N: Number>(values: &[N], sign: Sign) -> (Head, u64) {
            Head::choose(values, sign)
        }
        fn write_planes<N: Number>(head: &Head, values: &[N], to: &mut Planes<'_>, room: &mut [u64; TOGETHER]) -> () {
            head.write_planes(values, to, room)
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn are_wide() -> bool {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
    }
}

/// A base at or below the smallest step from which a step of zero is in the middle of a byte's range: small steps up
/// and down then have the same higher bytes.
fn centred(smallest: i64, largest: i64) -> i64 {
    if smallest >= 0 || planes_of(largest.wrapping_sub(smallest) as u64) < 2 {
        return smallest;
    }
    let shift = smallest.wrapping_sub(128).rem_euclid(256);
    match smallest.checked_sub(shift) {
        Some(base)
            if planes_of(largest.wrapping_sub(base) as u64) == planes_of(largest.wrapping_sub(smallest) as u64) =>
        {
            base
        }
        _ => smallest,
    }
}

/// Groups whose predictions are chosen, to be written or to be compared.
pub struct Groups<'v, N> {
    /// None of them is empty.
    groups: Vec<&'v [N]>,
    heads: Vec<Head>,
    /// About what they will take.
    pub bits: u64,
}

/// The groups that end so, one behind the other, without those that are empty.
pub fn groups_until<'v, N>(values: &'v [N], ends: &[usize]) -> Vec<&'v [N]> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    let groups = starts.zip(ends).map(|(start, &end)| &values[start..end]);
    groups.filter(|group| !group.is_empty()).collect()
}

impl<'v, N: Number> Groups<'v, N> {
    /// No group is empty: a reader knows of those that are.
    pub fn choose(groups: Vec<&'v [N]>, sign: Sign) -> Self {
        let mut heads = Vec::with_capacity(groups.len());
        let mut all_bits = 0;
        for group in &groups {
            let (head, bits) = vectors::choose(group, sign);
            heads.push(head);
            all_bits += bits;
        }
        Self {
            groups,
            heads,
            bits: all_bits,
        }
    }

    pub fn write(&self, body: &mut BodyWriter) {
        for head in &self.heads {
            head.write(body);
        }
        for planes in 1..=MAX_PLANES {
            let groups = || {
                let all = self.heads.iter().zip(&self.groups);
                all.filter(|(head, _)| head.planes == planes)
            };
            let length = groups().map(|(_, values)| values.len()).sum();
            body.columns(planes, length, |columns| {
                let mut planes = Planes {
                    columns,
                    length,
                    written: 0,
                };
                let mut room = [0; TOGETHER];
                for (head, values) in groups() {
                    vectors::write_planes(head, values, &mut planes, &mut room);
                }
            });
        }
    }
}

/// A column of one group.
pub fn write_integers<N: Number>(values: &[N], sign: Sign, body: &mut BodyWriter) {
    Groups::choose(groups_until(values, &[values.len()]), sign).write(body);
}

/// Gives the values of one group, one after the other.
#[derive(Clone, Default)]
pub struct Integers<'a> {
    head: Head,
    /// The group's first byte in plane 0; those of the next planes follow at a distance of `stride`.
    planes: &'a [u8],
    stride: usize,
    next: usize,
    length: usize,
}

impl Integers<'_> {
    #[inline]
    pub fn next(&mut self) -> Result<u64> {
        if self.next == self.length {
            return Err(wire_error!("a column has no more than {} values", self.length));
        }
        let mut value = self.head.base;
        let mut residual = 0;
        for plane in 0..self.head.planes {
            residual |= u64::from(self.planes[plane * self.stride + self.next]) << (8 * plane);
        }
        value = value.wrapping_add(residual);
        if self.head.is_delta {
            value = value.wrapping_add(self.head.start);
            self.head.start = value;
        }
        self.next += 1;
        Ok(value)
    }

    /// A value that is a number of bytes, of things, an index.
    #[inline]
    pub fn next_size(&mut self) -> Result<usize> {
        let value = self.next()?;
        usize::try_from(value).map_err(|_| wire_error!("{value} as a size"))
    }
}

/// Reads groups of the lengths given.
pub fn read_groups<'a>(lengths: &[usize], body: &mut BodyReader<'a>) -> Result<Vec<Integers<'a>>> {
    let mut groups = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let head = if length > 0 { Head::read(body)? } else { Head::default() };
        groups.push(Integers {
            head,
            length,
            ..Integers::default()
        });
    }
    for planes in 1..=MAX_PLANES {
        let of_class = |group: &&mut Integers<'a>| group.head.planes == planes;
        let stride: usize = groups.iter_mut().filter(of_class).map(|group| group.length).sum();
        if stride == 0 {
            continue;
        }
        let bytes = body.take(stride.saturating_mul(planes))?;
        let mut start = 0;
        for group in groups.iter_mut().filter(of_class) {
            group.planes = &bytes[start..];
            group.stride = stride;
            start += group.length;
        }
    }
    Ok(groups)
}

/// Reads a column of one group.
pub fn read_integers<'a>(length: usize, body: &mut BodyReader<'a>) -> Result<Integers<'a>> {
    Ok(read_groups(&[length], body)?.pop().unwrap_or_default())
}
