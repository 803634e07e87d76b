//! A block as the views hand it over: its row, its process and its stored payload, taken from any Python object that
//! has these attributes. It never reads storage itself.

use std::collections::BTreeMap;

use micromegas_core::codec::Format;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::clock::Clock;

/// Times in ns since the epoch, block ticks relative to `start_ticks`, `frequency` in ticks per second. `later_rates` are
/// those of [`Clock::with_later_rates`].
#[derive(FromPyObject)]
pub struct BlockSource {
    pub process_id: String,
    pub stream_id: String,
    pub block_id: String,
    pub insert_time: i64,
    pub exe: String,
    pub username: String,
    pub computer: String,
    pub process_properties: BTreeMap<String, String>,
    pub start_time: i64,
    pub start_ticks: i64,
    pub frequency: i64,
    #[pyo3(attribute, default)]
    pub later_rates: Vec<(i64, i64, i64)>,
    pub begin_ticks: i64,
    pub end_ticks: i64,
    pub object_offset: i64,
    #[pyo3(attribute, default = Format::default().name().to_string())]
    pub format: String,
    pub dependencies_metadata: PyBackedBytes,
    pub objects_metadata: PyBackedBytes,
    pub payload: PyBackedBytes,
}

impl BlockSource {
    pub fn clock(&self) -> Result<Clock, String> {
        Clock::new(self.start_time, self.start_ticks, self.frequency)?.with_later_rates(&self.later_rates)
    }
}
