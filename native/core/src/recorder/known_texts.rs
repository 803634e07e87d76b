//! The texts among the values of log events, each kept once: one that comes again is not searched for secrets again.
//!
//! Texts are looked up some at a time. A dictionary of ten thousand doesn't fit into the first caches, and what one text
//! needs of it is found in three steps; so each step is done for all of them, and the processor fetches for all at once.

use super::scrubber::Scrubber;
use crate::codec::columns::{Dictionary, TextHash};

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
    asked: Vec<Asked>,
    /// Of the texts asked for.
    asked_bytes: Vec<u8>,
}

struct Asked {
    hash: TextHash,
    /// Where it ends in `asked_bytes`.
    end: usize,
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
pub struct Answer {
    pub place: Place,
    pub index: u32,
    /// Whether the scrubber finds the text suspicious: always the same scrubber.
    pub is_suspicious: bool,
}

impl KnownTexts {
    /// Asks for the index of a text that is UTF-8.
    #[inline]
    pub fn ask(&mut self, text: &[u8], place: Place) {
        let hash = self.texts.hash(text);
        self.asked_bytes.extend_from_slice(text);
        let end = self.asked_bytes.len();
        self.asked.push(Asked { hash, end, place });
    }

    /// Whether it is time to answer.
    #[inline]
    pub fn are_enough(&self) -> bool {
        self.asked.len() >= TOGETHER
    }

    /// Answers all that was asked.
    pub fn answer(&mut self, scrubber: &Scrubber, mut tell: impl FnMut(Answer)) {
        let mut start = 0;
        for asked in self.asked.chunks(TOGETHER) {
            let mut guesses = [None; TOGETHER];
            for (guess, asked) in guesses.iter_mut().zip(asked) {
                *guess = self.texts.guess(asked.hash);
            }
            let guessed = guesses.map(|guess| guess.map(|index| (index, self.texts.get(index))));
            let mut known = [None; TOGETHER];
            let mut from = start;
            for ((known, guessed), asked) in known.iter_mut().zip(guessed).zip(asked) {
                let text = &self.asked_bytes[from..asked.end];
                *known = guessed.filter(|(_, guessed)| *guessed == text).map(|(index, _)| index);
                from = asked.end;
            }
            for (known, asked) in known.into_iter().zip(asked) {
                let text = &self.asked_bytes[start..asked.end];
                start = asked.end;
                let index = known.unwrap_or_else(|| {
                    self.texts.look_up(text, asked.hash).unwrap_or_else(|missing| {
                        self.suspicious.push(scrubber.is_suspicious(text));
                        self.texts.insert(text, missing)
                    })
                });
                tell(Answer {
                    place: asked.place,
                    index,
                    is_suspicious: self.suspicious[index as usize],
                });
            }
        }
        self.asked.clear();
        self.asked_bytes.clear();
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
