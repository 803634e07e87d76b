//! The scope of a span event: where its name, target, file and line come from, for events with a description and for
//! events with a location and a name of their own. It must never hash a text per event.

use std::collections::hash_map::Entry;
use std::collections::HashMap;

use micromegas_core::codec::id_hash::IdHasher;
use micromegas_core::codec::{Dependencies, DependencyIndex, Place, RecordType, Result};

use crate::block_reader::{PerDependency, ValueBudget};

/// Which members of an event tell its scope.
pub enum ScopePlan {
    Description(Place),
    Named { location: Place, name: Place },
}

/// A scope as the dependencies of a block tell it.
pub struct Scope<'d> {
    pub name: &'d str,
    pub target: &'d str,
    pub filename: &'d str,
    pub line: u32,
}

impl ScopePlan {
    pub fn described(record_type: &RecordType, description: &str) -> Result<Self> {
        Ok(Self::Description(record_type.reference_field(description)?))
    }

    pub fn named(record_type: &RecordType, location: &str) -> Result<Self> {
        Ok(Self::Named {
            location: record_type.reference_field(location)?,
            name: record_type.reference_field("name")?,
        })
    }
}

/// What a builder made of the scopes of one block.
pub struct BlockScopes<T> {
    /// Of the texts that `make` has to look through: any number of scopes may have one long name.
    budget: ValueBudget,
    described: PerDependency<T>,
    named: HashMap<u64, T, IdHasher>,
}

impl<T: Copy> BlockScopes<T> {
    pub fn new(dependencies: &Dependencies<'_>, budget: ValueBudget) -> Self {
        Self {
            budget,
            described: PerDependency::new(dependencies.len()),
            named: HashMap::with_hasher(IdHasher::default()),
        }
    }

    /// The scope of the event `record`; `make` is called once for each scope of the block.
    pub fn get<'d>(
        &mut self,
        dependencies: &'d Dependencies<'_>,
        plan: &ScopePlan,
        record: &[u8],
        make: impl FnOnce(Scope<'d>) -> T,
    ) -> Result<T> {
        let Self {
            budget,
            described,
            named,
        } = self;
        match plan {
            ScopePlan::Description(description) => {
                let index = dependencies.find(description.reference(record))?;
                described.get(index, || {
                    let name = dependencies.object(index)?.text("name")?;
                    Ok(make(scope_at(dependencies, index, name, budget)?))
                })
            }
            ScopePlan::Named { location, name } => {
                let location = dependencies.find(location.reference(record))?;
                let name = dependencies.find(name.reference(record))?;
                match named.entry(u64::from(location) << 32 | u64::from(name)) {
                    Entry::Occupied(known) => Ok(*known.get()),
                    Entry::Vacant(slot) => {
                        let scope = scope_at(dependencies, location, dependencies.text(name)?, budget)?;
                        Ok(*slot.insert(make(scope)))
                    }
                }
            }
        }
    }
}

fn scope_at<'d>(
    dependencies: &'d Dependencies<'_>,
    index: DependencyIndex,
    name: &'d str,
    budget: &mut ValueBudget,
) -> Result<Scope<'d>> {
    let object = dependencies.object(index)?;
    let scope = Scope {
        name,
        target: object.text("target")?,
        filename: object.text("file")?,
        line: object.u32("line")?,
    };
    budget.spend(scope.name.len() + scope.target.len() + scope.filename.len())?;
    Ok(scope)
}

/// Event types of thread streams that a builder of another family passes over without a word.
pub fn is_span_type(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "BeginThreadSpanEvent",
        "EndThreadSpanEvent",
        "BeginThreadNamedSpanEvent",
        "EndThreadNamedSpanEvent",
        "BeginAsyncSpanEvent",
        "EndAsyncSpanEvent",
        "BeginAsyncNamedSpanEvent",
        "EndAsyncNamedSpanEvent",
    ];
    NAMES.contains(&name)
}
