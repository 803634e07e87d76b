//! The texts among the values of log events, each kept once: one that comes again is not searched for secrets again.
//!
//! Texts are looked up some at a time. A dictionary of ten thousand doesn't fit into the first caches, and what one text
//! needs of it is found in two steps; so each step is done for all of them, and the processor fetches for all at once.

use super::scrubber::Scrubber;
use crate::codec::columns::{Dictionary, Guess, TextHash};
use crate::message::value::Narrow;

/// The highest bit of each byte.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// What is kept from one cut to the next.
const MOST_TEXTS: usize = 32 << 10;
const MOST_BYTES: usize = 1 << 20;

/// So many texts are looked up together.
const TOGETHER: usize = 32;

#[derive(Default)]
pub struct KnownTexts {
    texts: Dictionary,
    /// By index: whether a text may be, or become part of, a secret.
    suspicious: Vec<bool>,
}

/// Texts that were asked for, in the records that they stand in.
#[derive(Default)]
pub struct Questions<'r> {
    asked: Vec<Asked<'r>>,
}

struct Asked<'r> {
    text: &'r [u8],
    hash: TextHash,
    guess: Guess,
    place: Place,
}

/// Where a text stands.
#[derive(Clone, Copy)]
pub struct Place {
    /// Of the events that wait.
    pub event: u32,
    /// Of their values.
    pub value: u32,
}

/// What was asked for.
#[derive(Clone, Copy)]
pub struct Answer {
    pub index: u32,
    /// Whether the scrubber finds the text suspicious: always the same scrubber.
    pub is_suspicious: bool,
}

impl Questions<'_> {
    /// Whether it is time to answer.
    #[inline]
    pub fn are_enough(&self) -> bool {
        self.asked.len() >= TOGETHER
    }
}

impl KnownTexts {
    /// Asks for the index of a text. False: it is no ASCII, so its units are not its UTF-8, and nothing was asked.
    #[inline(always)]
    pub fn ask<'r>(&self, text: Narrow<'r>, place: Place, questions: &mut Questions<'r>) -> bool {
        let mut all = 0;
        let hash = self
            .texts
            .hash_words(text.units.len(), text.words().inspect(|word| all |= word));
        if all & NOT_ASCII != 0 {
            return false;
        }
        self.texts.expect(hash);
        questions.asked.push(Asked {
            text: text.units,
            hash,
            guess: Guess::default(),
            place,
        });
        true
    }

    /// Answers all that was asked.
    pub fn answer(&mut self, questions: &mut Questions<'_>, scrubber: &Scrubber, mut tell: impl FnMut(Place, Answer)) {
        for asked in &mut questions.asked {
            asked.guess = self.texts.guess(asked.hash);
        }
        for asked in questions.asked.drain(..) {
            let answer = match self.texts.confirm(asked.guess, asked.text) {
                Some(index) => self.known(index),
                None => self.look_up(asked.text, asked.hash, scrubber),
            };
            tell(asked.place, answer);
        }
    }

    /// Answers at once.
    pub fn answer_now(&mut self, text: &[u8], scrubber: &Scrubber) -> Answer {
        self.look_up(text, self.texts.hash(text), scrubber)
    }

    #[inline]
    fn known(&self, index: u32) -> Answer {
        Answer {
            index,
            is_suspicious: self.suspicious[index as usize],
        }
    }

    #[inline(never)]
    fn look_up(&mut self, text: &[u8], hash: TextHash, scrubber: &Scrubber) -> Answer {
        let index = self.texts.look_up(text, hash).unwrap_or_else(|missing| {
            self.suspicious.push(scrubber.is_suspicious(text));
            self.texts.insert(text, missing)
        });
        self.known(index)
    }

    pub fn dictionary(&self) -> &Dictionary {
        &self.texts
    }

    pub fn dictionary_mut(&mut self) -> &mut Dictionary {
        &mut self.texts
    }

    /// Forgets all texts if they are many: no event refers to them any more.
    pub fn shrink(&mut self) {
        if self.texts.count() > MOST_TEXTS || self.texts.bytes() > MOST_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::value::Plain;

    /// A text as it stands in a record, with anything behind it in the last word.
    fn record_of(text: &[u8]) -> Vec<[u8; 8]> {
        let mut bytes = (5 | (text.len() as u64) << 8).to_le_bytes().to_vec();
        bytes.extend_from_slice(text);
        bytes.resize(bytes.len().next_multiple_of(8), 0xee);
        bytes.as_chunks().0.to_vec()
    }

    fn answers(known: &mut KnownTexts, text: &[u8]) -> Option<u32> {
        let record = record_of(text);
        let (mut words, mut questions, mut found) = (&record[..], Questions::default(), None);
        let Plain::Narrow(narrow) = Plain::take(&mut words) else {
            panic!()
        };
        assert!(words.is_empty());
        if known.ask(narrow, Place { event: 0, value: 0 }, &mut questions) {
            known.answer(&mut questions, &Scrubber::default(), |_, answer| {
                found = Some(answer.index)
            });
        }
        found
    }

    #[test]
    fn a_text_in_a_record_is_that_in_the_dictionary() {
        let mut known = KnownTexts::default();
        let texts: Vec<Vec<u8>> = (0..40)
            .map(|length| (0..length).map(|byte| b'0' + byte).collect())
            .collect();
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(known.answer_now(text, &Scrubber::default()).index, index as u32);
        }
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(answers(&mut known, text), Some(index as u32));
        }
        assert_eq!(known.dictionary().count(), texts.len());
    }

    #[test]
    fn texts_that_end_with_zeros_are_told_apart() {
        let mut known = KnownTexts::default();
        let found = [&b"a"[..], b"a\0", b"a\0\0", b""].map(|text| answers(&mut known, text));
        assert_eq!(found, [Some(0), Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn latin_1_is_not_taken_for_utf_8() {
        let mut known = KnownTexts::default();
        for text in [
            &b"caf\xe9"[..],
            b"\xe9 and more than a word",
            b"more than a word, \xe9, and more",
        ] {
            assert_eq!(answers(&mut known, text), None);
        }
        assert_eq!(known.dictionary().count(), 0);
    }
}
