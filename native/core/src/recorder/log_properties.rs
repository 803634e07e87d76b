//! The property sets of the log events that wait: each is made once of what stands in the records.

use std::collections::HashMap;

use super::blocks::Properties;
use super::record::Values;
use super::scrubber::Scrubber;
use crate::codec::id_hash::IdHasher;
use crate::message::template::push_str;
use crate::message::value::Value;

const LEVELS: [&str; 6] = ["fatal", "error", "warning", "info", "debug", "trace"];

/// A set of properties by its place in `PropertySets`, counted from one; 0: none.
pub type SetIndex = u32;

#[derive(Default)]
pub struct PropertySets {
    sets: Vec<Properties>,
    /// By what stands in the record: the same call site makes the same set again and again.
    known: HashMap<Box<[u8]>, SetIndex, IdHasher>,
}

impl PropertySets {
    pub fn count(&self) -> usize {
        self.sets.len()
    }

    /// Counted from zero.
    pub fn get(&self, index: usize) -> &Properties {
        &self.sets[index]
    }

    /// Of names and values.
    pub fn index_of(&mut self, values: Values<'_>, scrubber: &Scrubber) -> SetIndex {
        if let Some(&known) = self.known.get(values.bytes()) {
            return known;
        }
        self.sets.push(pairs_of(&values.collect::<Vec<_>>(), scrubber));
        let index = self.sets.len() as SetIndex;
        self.known.insert(values.bytes().into(), index);
        index
    }
}

fn pairs_of(values: &[Value<'_>], scrubber: &Scrubber) -> Properties {
    let text = |value: &Value<'_>| {
        let mut text = String::new();
        push_str(value, &mut text);
        text
    };
    let mut pairs = Properties::new();
    for pair in values.chunks_exact(2) {
        put(&mut pairs, text(&pair[0]), text(&pair[1]));
    }
    for (name, value) in &mut pairs {
        scrubber.scrub_property(name, value);
        // Existing readers fail the whole block on a property `level` with any other word.
        if name == "level" && !LEVELS.contains(&value.as_str()) {
            name.push('_');
        }
    }
    pairs
}

/// A name keeps its place and gets the later value.
fn put(pairs: &mut Properties, name: String, value: String) {
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    }
}
