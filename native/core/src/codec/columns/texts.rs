//! Columns of texts (or any bytes): their lengths, and all their bytes behind one another. Where texts repeat, each is
//! there once, in the order of first appearance, and the column has its indexes.

use std::hash::BuildHasher;

use super::super::error::{wire_error, Result};
use super::super::id_hash::IdHasher;
use super::body::{BodyReader, BodyWriter};
use super::integers::{read_integers, write_integers, Integers, Sign};

/// How many texts are looked at to see whether they repeat.
const SAMPLE: usize = 256;
/// What a reader keeps per text bounds how many a dictionary may have.
pub const MAX_DICTIONARY: usize = 1 << 20;

pub fn write_texts(texts: &[&[u8]], body: &mut BodyWriter) {
    let mut dictionary = Dictionary::default();
    let mut indexes = Vec::new();
    for (count, text) in texts.iter().enumerate() {
        indexes.push(u64::from(dictionary.index(text)));
        if count == SAMPLE && dictionary.texts.len() > SAMPLE * 3 / 4 {
            break;
        }
    }
    let distinct = dictionary.texts.len();
    if indexes.len() == texts.len() && distinct <= texts.len() * 3 / 4 && distinct <= MAX_DICTIONARY {
        body.byte(1);
        write_integers(&indexes, Sign::Unsigned, body);
        dictionary.write(body);
    } else {
        body.byte(0);
        write_run(texts, body);
    }
}

fn write_run(texts: &[&[u8]], body: &mut BodyWriter) {
    let lengths: Vec<u64> = texts.iter().map(|text| text.len() as u64).collect();
    write_integers(&lengths, Sign::Unsigned, body);
    body.column(lengths.iter().sum::<u64>() as usize, |bytes| {
        texts.iter().for_each(|text| bytes.extend_from_slice(text));
    });
}

/// Texts by index, each once.
#[derive(Default)]
pub struct Dictionary<'t> {
    hasher: IdHasher,
    /// A power of two of places, at most half of them taken: half a hash and one more than the index; 0: free.
    places: Vec<u64>,
    texts: Vec<&'t [u8]>,
}

impl<'t> Dictionary<'t> {
    #[inline]
    pub fn index(&mut self, text: &'t [u8]) -> u32 {
        if 2 * self.texts.len() >= self.places.len() {
            self.grow();
        }
        let half_hash = self.hasher.hash_one(text) & 0xffff_ffff_0000_0000;
        let mask = self.places.len() - 1;
        let mut at = (half_hash >> 32) as usize & mask;
        loop {
            let place = self.places[at];
            if place == 0 {
                self.texts.push(text);
                self.places[at] = half_hash | self.texts.len() as u64;
                return self.texts.len() as u32 - 1;
            }
            let index = place as u32 - 1;
            if place & 0xffff_ffff_0000_0000 == half_hash && self.texts[index as usize] == text {
                return index;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mask = (2 * self.places.len()).max(256) - 1;
        let before = std::mem::replace(&mut self.places, vec![0; mask + 1]);
        for place in before.into_iter().filter(|&place| place != 0) {
            let mut at = (place >> 32) as usize & mask;
            while self.places[at] != 0 {
                at = (at + 1) & mask;
            }
            self.places[at] = place;
        }
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The same texts in the order of their first appearance in `indexes`, which are changed to it.
    pub fn renumbered(&self, indexes: &mut [u64]) -> Self {
        let mut renumbered = Self::default();
        let mut new_indexes = vec![u64::MAX; self.texts.len()];
        for index in indexes {
            let new_index = &mut new_indexes[*index as usize];
            if *new_index == u64::MAX {
                *new_index = renumbered.texts.len() as u64;
                renumbered.texts.push(self.texts[*index as usize]);
            }
            *index = *new_index;
        }
        renumbered
    }

    pub fn write(&self, body: &mut BodyWriter) {
        body.count(self.texts.len());
        write_run(&self.texts, body);
    }
}

/// Texts behind one another.
#[derive(Clone)]
pub struct Run<'a> {
    lengths: Integers<'a>,
    bytes: &'a [u8],
}

impl<'a> Run<'a> {
    fn read(count: usize, body: &mut BodyReader<'a>) -> Result<Self> {
        let lengths = read_integers(count, body)?;
        let mut all = lengths.clone();
        let mut total = 0_usize;
        for _ in 0..count {
            total = total.saturating_add(all.next_size()?);
        }
        Ok(Self {
            lengths,
            bytes: body.take(total)?,
        })
    }

    fn next(&mut self) -> Result<&'a [u8]> {
        let length = self.lengths.next_size()?;
        let (text, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| wire_error!("a text of {length} bytes where {} are left", self.bytes.len()))?;
        self.bytes = rest;
        Ok(text)
    }
}

/// The texts of a dictionary, by index.
#[derive(Clone)]
pub struct Known<'a> {
    bytes: &'a [u8],
    /// Where each of the texts ends in `bytes`.
    ends: Vec<u32>,
}

impl<'a> Known<'a> {
    /// `uses` bounds how many there can be.
    pub fn read(uses: usize, body: &mut BodyReader<'a>) -> Result<Self> {
        let count = body.count(uses.min(MAX_DICTIONARY), "texts in a dictionary")?;
        let Run { mut lengths, bytes } = Run::read(count, body)?;
        if u32::try_from(bytes.len()).is_err() {
            return Err(wire_error!("a dictionary of {} bytes", bytes.len()));
        }
        let mut end = 0;
        let mut ends = Vec::with_capacity(count);
        for _ in 0..count {
            end += lengths.next_size()?; // `bytes` has just their sum
            ends.push(end as u32);
        }
        Ok(Self { bytes, ends })
    }

    pub fn get(&self, index: usize) -> Result<&'a [u8]> {
        let Some(&end) = self.ends.get(index) else {
            return Err(wire_error!("text {index} of {}", self.ends.len()));
        };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Ok(&self.bytes[start as usize..end as usize])
    }
}

/// Gives texts, one after the other.
#[derive(Clone)]
pub enum Texts<'a> {
    Run(Run<'a>),
    Dictionary { indexes: Integers<'a>, known: Known<'a> },
}

impl<'a> Texts<'a> {
    pub fn read(length: usize, body: &mut BodyReader<'a>) -> Result<Self> {
        if body.flag()? {
            let indexes = read_integers(length, body)?;
            let known = Known::read(length, body)?;
            Ok(Self::Dictionary { indexes, known })
        } else {
            Ok(Self::Run(Run::read(length, body)?))
        }
    }

    pub fn next(&mut self) -> Result<&'a [u8]> {
        match self {
            Self::Run(run) => run.next(),
            Self::Dictionary { indexes, known } => known.get(indexes.next_size()?),
        }
    }
}
