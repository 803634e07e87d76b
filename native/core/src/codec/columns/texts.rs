//! Columns of texts (or any bytes): their lengths, and all their bytes behind one another. Where texts repeat, each is
//! there once, in the order of first appearance, and the column has its indexes.

use std::ops::Range;

use super::super::error::{wire_error, Result};
use super::super::id_hash::IdHasher;
use super::super::prefetch::prefetch;
use super::body::{BodyReader, BodyWriter};
use super::integers::{read_integers, write_integers, Integers, Sign};

/// How many texts are looked at to see whether they repeat.
const SAMPLE: usize = 256;
/// What a reader keeps per text bounds how many a dictionary may have.
pub const MAX_DICTIONARY: usize = 1 << 20;

/// Whether short texts are equal, without a call.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        (Some(last), Some(other_last)) => {
            let (words, other_words) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
            last == other_last && words.iter().zip(other_words).all(|(word, other)| word == other)
        }
        _ => one.iter().zip(other).all(|(byte, other)| byte == other),
    }
}

/// Bytes eight at a time; the last word is filled up with zeros.
#[inline]
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (whole, rest) = bytes.as_chunks::<8>();
    let last = match bytes.last_chunk::<8>() {
        // what was in a word before it goes out at the lower end
        Some(last) => u64::from_le_bytes(*last).checked_shr(64 - 8 * rest.len() as u32),
        None => Some(rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))),
    };
    let last = last.filter(|_| !rest.is_empty());
    whole.iter().map(|word| u64::from_le_bytes(*word)).chain(last)
}

/// Of a text, for one dictionary.
#[derive(Clone, Copy)]
pub struct TextHash(u32);

/// The text that is found first where one of that hash would be: where it begins, and how long it is.
#[derive(Clone, Copy, Default)]
pub struct Guess {
    /// One more than its index; 0: none.
    after: u32,
    start: u32,
    length: u32,
}

/// Where a text would be found.
#[derive(Clone, Copy)]
pub struct Missing {
    at: usize,
    hash: TextHash,
}

pub fn write_texts(texts: &[&[u8]], body: &mut BodyWriter) {
    let mut dictionary = Dictionary::default();
    let mut indexes: Vec<u32> = Vec::with_capacity(texts.len());
    for (count, text) in texts.iter().enumerate() {
        indexes.push(dictionary.index(text));
        if count == SAMPLE && dictionary.count() > SAMPLE * 3 / 4 {
            break;
        }
    }
    let distinct = dictionary.count();
    if indexes.len() == texts.len() && distinct <= texts.len() * 3 / 4 && distinct <= MAX_DICTIONARY {
        body.byte(1);
        write_integers(&indexes, Sign::Unsigned, body);
        body.count(distinct);
        write_run(distinct, dictionary.iter(), body);
    } else {
        body.byte(0);
        write_run(texts.len(), texts.iter().copied(), body);
    }
}

/// What `write_texts` writes for so many empty ones.
pub fn write_empty_texts(count: usize, body: &mut BodyWriter) {
    match count {
        0 | 1 => write_texts(&[b"" as &[u8]][..count], body),
        _ => {
            body.byte(1);
            write_integers(&[0_u64], Sign::Unsigned, body);
            body.count(1);
            write_run(1, std::iter::once(b"" as &[u8]), body);
        }
    }
}

fn write_run<'t>(count: usize, texts: impl Iterator<Item = &'t [u8]> + Clone, body: &mut BodyWriter) {
    let mut lengths = Vec::with_capacity(count);
    lengths.extend(texts.clone().map(|text| text.len() as u64));
    write_integers(&lengths, Sign::Unsigned, body);
    body.column(lengths.iter().sum::<u64>() as usize, |bytes| {
        texts.for_each(|text| bytes.extend_from_slice(text));
    });
}

/// Of a dictionary's texts. Free where there is no text.
#[derive(Clone, Copy, Default)]
struct Place {
    hash: u32,
    text: Guess,
}

/// Texts by index, each once, behind one another: looking one up touches little memory.
#[derive(Default)]
pub struct Dictionary {
    hasher: IdHasher,
    /// A power of two of places, at most half of them taken, so that most texts are where they are looked for first.
    places: Vec<Place>,
    /// Where each text begins and how long it is.
    ranges: Vec<(usize, u32)>,
    bytes: Vec<u8>,
    /// Of texts that are being renumbered: one more than the new index; 0 at all other times.
    new_indexes: Vec<u32>,
}

impl Dictionary {
    #[inline]
    pub fn index(&mut self, text: &[u8]) -> u32 {
        let place = self.look_up(text, self.hash(text));
        place.unwrap_or_else(|missing| self.insert(text, missing))
    }

    #[inline]
    pub fn hash(&self, text: &[u8]) -> TextHash {
        self.hash_words(text.len(), words(text))
    }

    /// The same of a text of that many bytes in words, the last one filled up with zeros.
    #[inline(always)]
    pub fn hash_words(&self, length: usize, words: impl Iterator<Item = u64>) -> TextHash {
        TextHash((self.hasher.of_words(length, words) >> 32) as u32)
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }

    /// Has the processor fetch what `guess` looks at, without waiting for it.
    #[inline(always)]
    pub fn expect(&self, hash: TextHash) {
        prefetch(&self.places, hash.0 as usize & self.mask());
    }

    /// Which text may have the hash: the first of two steps, each of which waits for other memory.
    #[inline]
    pub fn guess(&self, hash: TextHash) -> Guess {
        let mask = self.mask();
        let mut at = hash.0 as usize & mask;
        while let Some(place) = self.places.get(at).filter(|place| place.text.after != 0) {
            if place.hash == hash.0 {
                prefetch(&self.bytes, place.text.start as usize);
                return place.text;
            }
            at = (at + 1) & mask;
        }
        Guess::default()
    }

    /// The text's index, if it was guessed.
    #[inline]
    pub fn confirm(&self, guess: Guess, text: &[u8]) -> Option<u32> {
        let index = guess.after.checked_sub(1)?;
        let behind = self.bytes.get(guess.start as usize..)?;
        is_same(behind.get(..guess.length as usize)?, text).then_some(index)
    }

    /// The text's index, or what `insert` is to be told.
    #[inline]
    pub fn look_up(&mut self, text: &[u8], hash: TextHash) -> std::result::Result<u32, Missing> {
        if 2 * self.ranges.len() >= self.places.len() {
            self.grow();
        }
        let mask = self.mask();
        let mut at = hash.0 as usize & mask;
        loop {
            let place = &self.places[at];
            let Some(index) = place.text.after.checked_sub(1) else {
                return Err(Missing { at, hash });
            };
            if place.hash == hash.0 && is_same(self.get(index), text) {
                return Ok(index);
            }
            at = (at + 1) & mask;
        }
    }

    /// A text that was looked up last, and is missing.
    pub fn insert(&mut self, text: &[u8], missing: Missing) -> u32 {
        let index = self.ranges.len() as u32;
        self.places[missing.at] = Place {
            hash: missing.hash.0,
            text: Guess {
                after: index + 1,
                // one that begins behind 4 GiB is looked up, for no guess is confirmed
                start: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
                length: text.len() as u32,
            },
        };
        self.ranges.push((self.bytes.len(), text.len() as u32));
        self.bytes.extend_from_slice(text);
        index
    }

    #[cold]
    fn grow(&mut self) {
        let mask = (2 * self.places.len()).max(256) - 1;
        let before = std::mem::replace(&mut self.places, vec![Place::default(); mask + 1]);
        for place in before.into_iter().filter(|place| place.text.after != 0) {
            let mut at = place.hash as usize & mask;
            while self.places[at].text.after != 0 {
                at = (at + 1) & mask;
            }
            self.places[at] = place;
        }
    }

    #[inline]
    pub fn get(&self, index: u32) -> &[u8] {
        let (start, length) = self.ranges[index as usize];
        &self.bytes[start..start + length as usize]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.ranges.len() as u32).map(|index| self.get(index))
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Of all texts together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Changes the `indexes` among the values to those of a dictionary that has the same texts in the order of their first appearance; gives
    /// what `write` is to write as that.
    pub fn renumber(&mut self, values: &mut [u64], indexes: &[Range<usize>]) -> Vec<u32> {
        let mut order = Vec::new();
        self.new_indexes.resize(self.ranges.len(), 0);
        for index in indexes.iter().cloned().flatten() {
            let index = &mut values[index];
            let new_index = &mut self.new_indexes[*index as usize];
            if *new_index == 0 {
                order.push(*index as u32);
                *new_index = order.len() as u32;
            }
            *index = u64::from(*new_index) - 1;
        }
        for &index in &order {
            self.new_indexes[index as usize] = 0;
        }
        order
    }

    pub fn write(&self, order: &[u32], body: &mut BodyWriter) {
        body.count(order.len());
        write_run(order.len(), order.iter().map(|&index| self.get(index)), body);
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
