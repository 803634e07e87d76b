//! The texts among the values of log events, each kept once: one that comes again is not searched for secrets again.
//!
//! Texts are looked up some at a time. A dictionary of ten thousand doesn't fit into the first caches, and what one text
//! needs of it is found in three steps; so each step is done for all of them, and the processor fetches for all at once.

use super::scrubber::Scrubber;
use crate::codec::columns::{Dictionary, Guess, TextHash};

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
    /// Asks for the index of a text that is UTF-8.
    #[inline(always)]
    pub fn ask<'r>(&self, text: &'r [u8], place: Place, questions: &mut Questions<'r>) {
        let hash = self.texts.hash(text);
        self.texts.expect(hash);
        questions.asked.push(Asked {
            text,
            hash,
            guess: Guess::default(),
            place,
        });
    }

    /// Answers all that was asked.
    pub fn answer(&mut self, questions: &mut Questions<'_>, scrubber: &Scrubber, mut tell: impl FnMut(Place, Answer)) {
        for asked in &mut questions.asked {
            asked.guess = self.texts.guess(asked.hash);
        }
        for asked in &mut questions.asked {
            self.texts.look_closer(&mut asked.guess);
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
