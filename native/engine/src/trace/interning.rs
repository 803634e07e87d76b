//! Names that a trace writes once and then calls by number. One numbering for the whole trace; each sequence of packets
//! remembers which numbers it has explained.

use std::collections::HashMap;
use std::sync::Arc;

/// So many names are kept; then all numbers are forgotten, and explained again where they are used.
pub const MAX_NAMES: usize = 32_768;

/// Texts by number, from 0.
#[derive(Default)]
pub struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Texts {
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    pub fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// Lines of files by number, from 0; a file is its number among `Names::files`.
#[derive(Default)]
pub struct Locations {
    numbers: HashMap<(u32, u32), u32>,
    places: Vec<(u32, u32)>,
}

impl Locations {
    pub fn number(&mut self, file: u32, line: u32) -> u32 {
        let next = self.places.len() as u32;
        let number = *self.numbers.entry((file, line)).or_insert(next);
        if number == next {
            self.places.push((file, line));
        }
        number
    }

    pub fn place(&self, number: u32) -> (u32, u32) {
        self.places[number as usize]
    }
}

/// What events refer to.
#[derive(Default)]
pub struct Names {
    pub events: Texts,
    pub categories: Texts,
    pub files: Texts,
    pub locations: Locations,
}

impl Names {
    pub fn is_full(&self) -> bool {
        let most = self.events.len().max(self.categories.len()).max(self.files.len());
        most.max(self.locations.places.len()) >= MAX_NAMES
    }
}

/// The numbers that a sequence has explained.
#[derive(Default)]
pub struct Explained {
    bits: Vec<u64>,
}

impl Explained {
    /// Whether the number is new; from now on it isn't.
    #[inline]
    pub fn add(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }
}
