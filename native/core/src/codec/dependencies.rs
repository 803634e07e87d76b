//! The dependencies of one block: what the ids in its events stand for. Ids mean nothing outside of their block.
//!
//! A dependency may refer only to those written before it, so nothing here can be cyclic.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::ops::Range;

use super::bytes::ByteReader;
use super::error::{wire_error, Result};
use super::id_hash::IdHasher;
use super::layout::{RecordType, RecordTypes};
use super::place::Place;
use super::records::{Record, Records};
use super::strings::{encoded_text, strict_text};

/// Position of a dependency in its block. Callers keep what they made of a dependency under this number.
pub type DependencyIndex = u32;

enum Dependency<'a> {
    Text(Cow<'a, str>),
    /// A part of `Dependencies::properties`.
    PropertySet(Range<usize>),
    Object(&'a RecordType, &'a [u8]),
}

pub struct Dependencies<'a> {
    by_id: HashMap<u64, DependencyIndex, IdHasher>,
    values: Vec<Dependency<'a>>,
    properties: Vec<(DependencyIndex, DependencyIndex)>,
}

/// A dependency, as seen by who does not know its kind.
pub enum DependencyView<'d, 'a> {
    Text(&'d str),
    PropertySet,
    Object(&'a RecordType, &'a [u8]),
}

impl<'a> Dependencies<'a> {
    /// Reads the whole buffer; any bad record fails the block, since an id could be missing or mean something else.
    pub fn parse(types: &'a RecordTypes, buffer: &'a [u8]) -> Result<Self> {
        let mut dependencies = Self {
            by_id: HashMap::with_hasher(IdHasher::default()),
            values: Vec::new(),
            properties: Vec::new(),
        };
        for record in Records::new(types, buffer) {
            let record = record.map_err(|error| error.within("dependencies"))?;
            dependencies.add(types, record).map_err(|error| {
                error.within(format!(
                    "dependency {} ({})",
                    dependencies.values.len(),
                    record.record_type.name
                ))
            })?;
        }
        Ok(dependencies)
    }

    fn add(&mut self, types: &RecordTypes, record: Record<'a>) -> Result<()> {
        let (id, value) = match (record.record_type.name.as_str(), record.record_type.size) {
            ("StaticString", None) => {
                let mut body = ByteReader::new(record.body);
                (body.u64()?, Dependency::Text(Cow::Borrowed(strict_text(body.rest())?)))
            }
            ("StaticStringDependency", None) => {
                let mut body = ByteReader::new(record.body);
                (body.u64()?, Dependency::Text(encoded_text(&mut body)?))
            }
            ("PropertySetDependency", None) => self.property_set(types, record.body)?,
            (_, Some(_)) => {
                let id = record.record_type.wide_field("id")?.u64(record.body);
                (id, Dependency::Object(record.record_type, record.body))
            }
            (_, None) => return Err(wire_error!("unknown type of dependency")),
        };
        let index = DependencyIndex::try_from(self.values.len()).map_err(|_| wire_error!("too many dependencies"))?;
        match self.by_id.entry(id) {
            Entry::Occupied(_) => Err(wire_error!("id {id} twice")),
            Entry::Vacant(slot) => {
                slot.insert(index);
                self.values.push(value);
                Ok(())
            }
        }
    }

    fn property_set(&mut self, types: &RecordTypes, body: &'a [u8]) -> Result<(u64, Dependency<'a>)> {
        let mut body = ByteReader::new(body);
        let id = body.u64()?;
        let count = body.u32()? as usize;
        let start = self.properties.len();
        if count > 0 {
            let (size, name_place, value_place) = types.property()?;
            if count > body.rest().len() / size {
                return Err(wire_error!("{count} properties in {} bytes", body.rest().len()));
            }
            for property in body.rest().chunks_exact(size).take(count) {
                let name = self.text_reference(property, name_place)?;
                let value = self.text_reference(property, value_place)?;
                self.properties.push((name, value));
            }
        }
        Ok((id, Dependency::PropertySet(start..self.properties.len())))
    }

    fn text_reference(&self, record: &[u8], place: Place) -> Result<DependencyIndex> {
        let index = self.find(place.reference(record))?;
        self.text(index)?;
        Ok(index)
    }

    /// Number of dependencies; every `DependencyIndex` is below it.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The dependency of an id.
    #[inline]
    pub fn find(&self, id: u64) -> Result<DependencyIndex> {
        match self.by_id.get(&id) {
            Some(index) => Ok(*index),
            None => Err(wire_error!("no dependency has the id {id}")),
        }
    }

    /// The text at `index`, or an error when something else is there.
    pub fn text(&self, index: DependencyIndex) -> Result<&str> {
        match self.values.get(index as usize) {
            Some(Dependency::Text(text)) => Ok(text),
            _ => Err(wire_error!("dependency {index} is no text")),
        }
    }

    /// The (name, value) pairs of the property set at `index`, in their order on the wire.
    pub fn property_set_at(
        &self,
        index: DependencyIndex,
    ) -> Result<impl ExactSizeIterator<Item = (&str, &str)> + Clone + '_> {
        let Some(Dependency::PropertySet(range)) = self.values.get(index as usize) else {
            return Err(wire_error!("dependency {index} is no property set"));
        };
        // both were checked to be texts when the set was read
        Ok(self.properties[range.clone()]
            .iter()
            .map(|(name, value)| (self.known_text(*name), self.known_text(*value))))
    }

    fn known_text(&self, index: DependencyIndex) -> &str {
        match &self.values[index as usize] {
            Dependency::Text(text) => text,
            _ => unreachable!("property sets hold texts only"),
        }
    }

    pub fn view(&self, index: DependencyIndex) -> Option<DependencyView<'_, 'a>> {
        self.values.get(index as usize).map(|value| match value {
            Dependency::Text(text) => DependencyView::Text(text),
            Dependency::PropertySet(_) => DependencyView::PropertySet,
            Dependency::Object(record_type, body) => DependencyView::Object(record_type, body),
        })
    }

    /// The object (a description) at `index`, or an error when something else is there.
    pub fn object(&self, index: DependencyIndex) -> Result<DependencyObject<'_, 'a>> {
        match self.values.get(index as usize) {
            Some(Dependency::Object(record_type, body)) => Ok(DependencyObject {
                dependencies: self,
                index,
                record_type,
                body,
            }),
            _ => Err(wire_error!("dependency {index} is no object")),
        }
    }
}

/// A description: its members by name.
#[derive(Clone, Copy)]
pub struct DependencyObject<'d, 'a> {
    dependencies: &'d Dependencies<'a>,
    index: DependencyIndex,
    record_type: &'a RecordType,
    body: &'a [u8],
}

impl<'d> DependencyObject<'d, '_> {
    /// The text that the member `name` refers to.
    pub fn text(&self, name: &str) -> Result<&'d str> {
        self.text_of(self.record_type.reference_field(name)?)
            .map_err(|error| error.within(format!("member {name}")))
    }

    fn text_of(&self, place: Place) -> Result<&'d str> {
        let index = self.dependencies.find(place.reference(self.body))?;
        if index >= self.index {
            return Err(wire_error!("dependency {index} is used before it is written"));
        }
        self.dependencies.text(index)
    }

    /// The u8 or u32 member `name`.
    pub fn u32(&self, name: &str) -> Result<u32> {
        Ok(self.record_type.narrow_field(name)?.u32(self.body))
    }
}
