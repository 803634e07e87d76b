//! The property set of a record: its attributes, what is told of it, and what it shares with its neighbours.
//! A name that OTLP's own facts take (`otel.…`) is theirs, whatever an attribute of that name says.

use std::borrow::Cow;

use micromegas_core::codec::{Result, WireError};

use super::reader::Fields;
use super::records::Scope;
use super::value::{key_value, repeated, AnyValue};
use super::MAX_ATTRIBUTES;
use crate::block_reader::{encode_property_set, ValueBudget};
use crate::columns::DictionaryColumn;

/// Names and values as texts, in the order in which the last of equal names counts.
#[derive(Default)]
pub struct Properties<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    bytes: usize,
}

impl<'a> Properties<'a> {
    pub fn clear(&mut self) {
        self.pairs.clear();
        self.bytes = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (name, value) = (name.into(), value.into());
        self.bytes += name.len() + value.len();
        self.pairs.push((name, value));
    }

    /// A text that is nothing when it is empty.
    pub fn push_text(&mut self, name: &'static str, value: &'a str) {
        if !value.is_empty() {
            self.push(name, value);
        }
    }

    /// The message `KeyValue`.
    pub fn push_attribute(&mut self, message: &'a [u8]) -> Result<()> {
        let (key, value) = key_value(message)?;
        self.push_named(key, value)
    }

    fn push_named(&mut self, name: impl Into<Cow<'a, str>>, value: AnyValue<'a>) -> Result<()> {
        if self.pairs.len() >= MAX_ATTRIBUTES {
            return Err(WireError::new(format!("more than {MAX_ATTRIBUTES} attributes")));
        }
        self.push(name, value.text()?);
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// What all records of a group have in common.
#[derive(Default)]
pub struct GroupProperties<'a> {
    scope: Properties<'a>,
    metric: Properties<'a>,
    /// The key of the set that has nothing else.
    alone: Option<i32>,
}

impl<'a> GroupProperties<'a> {
    /// The scope's name and what is told of the scope.
    pub fn of_scope(scope: &Scope<'a>) -> Result<(&'a str, Self)> {
        let mut told = Properties::default();
        let (mut name, mut version) = ("", "");
        for field in Fields::new(scope.message) {
            match field? {
                (1, wire) => name = wire.text()?,
                (2, wire) => version = wire.text()?,
                _ => {}
            }
        }
        for attribute in repeated(scope.message, 3) {
            let (key, value) = key_value(attribute?)?;
            told.push_named(format!("otel.scope.attr.{key}"), value)?;
        }
        told.push_text("otel.scope.name", name);
        told.push_text("otel.scope.version", version);
        told.push_text("otel.schema_url", scope.schema_url);
        let group = Self {
            scope: told,
            ..Self::default()
        };
        Ok((name, group))
    }

    /// Forgets the metric before, to be told of the next one of the same scope.
    pub fn next_metric(&mut self) -> &mut Properties<'a> {
        self.alone = None;
        self.metric.clear();
        &mut self.metric
    }

    /// The key in `column` of a record's own properties together with those of its group.
    pub fn intern(
        &mut self,
        own: &Properties<'_>,
        column: &mut DictionaryColumn,
        budget: &mut ValueBudget,
    ) -> Result<i32> {
        if let (true, Some(key)) = (own.is_empty(), self.alone) {
            return Ok(key);
        }
        // spent before anything is looked through, so that a group of many properties costs its records nothing more
        // once the budget is spent
        budget.spend(self.scope.bytes + self.metric.bytes)?;
        let pairs = own.iter().chain(self.scope.iter()).chain(self.metric.iter());
        let encoded = encode_property_set(pairs, budget)?;
        let key = column.values.intern(&encoded);
        if own.is_empty() {
            self.alone = Some(key);
        }
        Ok(key)
    }
}
