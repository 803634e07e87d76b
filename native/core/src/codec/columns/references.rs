//! Columns of references: the ids in the order of their first appearance, and which of them each value is.

use std::collections::HashMap;

use super::super::error::{wire_error, Result};
use super::super::id_hash::IdHasher;
use super::body::{BodyReader, BodyWriter};
use super::integers::{read_integers, write_integers, Integers, Sign};

/// Ids below are looked up in a table: our recorder counts from one.
const SMALL_IDS: usize = 1 << 16;

#[derive(Default)]
pub struct ReferenceColumn {
    /// One more than the index of the id, or 0.
    small: Vec<u32>,
    large: HashMap<u64, u32, IdHasher>,
    ids: Vec<u64>,
    /// So many values are the first id, and come before those of `indexes`, which has none as long as there are no others.
    same: usize,
    /// Into `ids`.
    indexes: Vec<u32>,
}

impl ReferenceColumn {
    /// For about so many values.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            indexes: Vec::with_capacity(count),
            ..Self::default()
        }
    }

    #[inline]
    pub fn push(&mut self, id: u64) {
        self.spell_out();
        let index = self.index_of(id);
        self.indexes.push(index);
    }

    pub fn extend(&mut self, ids: impl Iterator<Item = u64>) {
        self.spell_out();
        let mut indexes = std::mem::take(&mut self.indexes);
        indexes.extend(ids.map(|id| self.index_of(id)));
        self.indexes = indexes;
    }

    /// One id, so many times.
    pub fn extend_same(&mut self, id: u64, times: usize) {
        if times == 0 {
            return;
        }
        let index = self.index_of(id);
        if index == 0 && self.indexes.is_empty() {
            self.same += times;
        } else {
            self.spell_out();
            self.indexes.resize(self.indexes.len() + times, index);
        }
    }

    #[inline]
    fn spell_out(&mut self) {
        if self.same > 0 {
            self.indexes.resize(std::mem::take(&mut self.same), 0);
        }
    }

    #[inline]
    fn index_of(&mut self, id: u64) -> u32 {
        match self.small.get(id as usize) {
            Some(&known) if known > 0 => known - 1,
            _ => self.look_up(id),
        }
    }

    #[cold]
    fn look_up(&mut self, id: u64) -> u32 {
        let next = self.ids.len() as u32;
        if id < SMALL_IDS as u64 {
            let id = id as usize;
            if self.small.len() <= id {
                self.small.resize(id + 1, 0);
            }
            self.small[id] = next + 1;
        } else if let Some(&known) = self.large.get(&id) {
            return known;
        } else {
            self.large.insert(id, next);
        }
        self.ids.push(id);
        next
    }

    /// For the next block; memory is kept.
    pub fn clear(&mut self) {
        for &id in &self.ids {
            if let Some(known) = self.small.get_mut(id as usize) {
                *known = 0;
            }
        }
        self.large.clear();
        self.same = 0;
        self.ids.clear();
        self.indexes.clear();
    }

    /// Which of the ids each value is. Of a column that was not made by `extend_same`.
    pub fn indexes(&self) -> &[u32] {
        debug_assert_eq!(self.same, 0);
        &self.indexes
    }

    pub fn distinct(&self) -> usize {
        self.ids.len()
    }

    pub fn write(&self, body: &mut BodyWriter) {
        // a column of zeros is told by the first of them
        let indexes = if self.same > 0 { &[0] } else { &self.indexes[..] };
        write_integers(indexes, Sign::Unsigned, body);
        body.count(self.ids.len());
        write_integers(&self.ids, Sign::Unsigned, body);
    }
}

/// Gives ids, one after the other.
#[derive(Clone)]
pub struct References<'a> {
    indexes: Integers<'a>,
    ids: Integers<'a>,
    known: Vec<u64>,
    distinct: usize,
}

impl<'a> References<'a> {
    pub fn read(length: usize, body: &mut BodyReader<'a>) -> Result<Self> {
        let indexes = read_integers(length, body)?;
        let distinct = body.count(length, "ids")?;
        Ok(Self {
            indexes,
            ids: read_integers(distinct, body)?,
            known: Vec::new(),
            distinct,
        })
    }

    pub fn distinct(&self) -> usize {
        self.distinct
    }

    /// The id, and its index among those of the column.
    #[inline]
    pub fn next(&mut self) -> Result<(u64, usize)> {
        let index = self.indexes.next_size()?;
        if index == self.known.len() {
            let id = self.ids.next()?;
            self.known.push(id);
        }
        match self.known.get(index) {
            Some(&id) => Ok((id, index)),
            None => Err(wire_error!("id {index} where {} are known", self.known.len())),
        }
    }
}
