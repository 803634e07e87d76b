//! How the blocks of a stream are encoded, as its announcement says.

use super::error::{wire_error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Two LZ4 frames of records.
    #[default]
    Transit,
    /// The records of both buffers as columns.
    Columns,
}

impl Format {
    pub const READABLE: [Self; 2] = [Self::Transit, Self::Columns];

    pub fn name(self) -> &'static str {
        match self {
            Self::Transit => "micromegas-transit",
            Self::Columns => "micromegas-columns/1",
        }
    }

    /// Fails for formats whose events are no records of the wire format, or that are newer than this code.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::READABLE.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            let [transit, columns] = Self::READABLE.map(Self::name);
            wire_error!("format `{shown}` cannot be read, only `{transit}` and `{columns}`")
        })
    }
}
