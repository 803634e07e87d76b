//! The property sets that events of one block refer to, each encoded once, as keys of the column `properties`.

use micromegas_core::codec::{Dependencies, DependencyIndex, Result, WireError};

use crate::block_reader::{encode_property_set, PerDependency, ValueBudget};
use crate::columns::DictionaryColumn;

/// A property set: its key in the column, and what it says of other columns of the row.
#[derive(Clone, Copy)]
pub struct PropertySet<Said> {
    pub key: i32,
    pub said: Said,
}

pub struct PropertySets<Said> {
    sets: PerDependency<PropertySet<Said>>,
    /// Whether a set could not be encoded: any number of events may refer to one that takes long to find that out.
    failed: Vec<bool>,
    /// Key of the set without properties.
    none: i32,
}

impl<Said: Copy + Default> PropertySets<Said> {
    pub fn new(
        dependencies: &Dependencies<'_>,
        column: &mut DictionaryColumn,
        budget: &mut ValueBudget,
    ) -> Result<Self> {
        let none = encode_property_set(std::iter::empty(), budget)?;
        Ok(Self {
            sets: PerDependency::new(dependencies.len()),
            failed: Vec::new(),
            none: column.values.intern(&none),
        })
    }

    pub fn none(&self) -> i32 {
        self.none
    }

    /// `say` is given each name and value in the order of the wire, so that the last of a name counts.
    pub fn get(
        &mut self,
        dependencies: &Dependencies<'_>,
        index: DependencyIndex,
        column: &mut DictionaryColumn,
        budget: &mut ValueBudget,
        mut say: impl FnMut(&mut Said, &str, &str),
    ) -> Result<PropertySet<Said>> {
        let Self { sets, failed, .. } = self;
        sets.get(index, || {
            let pairs = dependencies.property_set_at(index)?;
            if failed.get(index as usize) == Some(&true) {
                return Err(WireError::new(format!("property set {index} was left out before")));
            }
            let encoded = encode_property_set(pairs.clone(), budget).inspect_err(|_| {
                failed.resize(dependencies.len(), false);
                failed[index as usize] = true;
            })?;
            let key = column.values.intern(&encoded);
            let mut said = Said::default();
            for (name, value) in pairs {
                say(&mut said, name, value);
            }
            Ok(PropertySet { key, said })
        })
    }
}
