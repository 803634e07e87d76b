//! What all the builders share when they read a block: layouts by stream, things made once per dependency, and the
//! list of what was wrong. A problem of one event never hides the events around it.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use micromegas_core::codec::limits::MAX_DECOMPRESSED_BYTES;
use micromegas_core::codec::{BlockBuffers, DependencyIndex, Format, Record, Records, StreamLayout, WireError};

use pyo3::exceptions::PyValueError;
use pyo3::PyResult;

use crate::block_source::BlockSource;
use crate::jsonb;

/// Streams of one row group whose layouts are kept; each process brings its own order of types.
const MAX_CACHED_LAYOUTS: usize = 1024;
/// Bytes of column values that the events of one block may make beyond those that its buffers hold. A few kilobytes of
/// compressed input can refer to one long text a million times, so the cap of the buffers does not bound the columns.
const MAX_REPEATED_VALUE_BYTES: usize = 128 << 20;
/// Bytes of a growing column's values from which a builder takes no further block: Arrow's offsets end at 2 GiB.
const MAX_COLUMN_BYTES: usize = 1 << 30;
/// Texts kept per block. The rest is counted.
const MAX_PROBLEMS: usize = 16;

type LayoutsByMetadata = HashMap<Box<[u8]>, Arc<StreamLayout>>;

/// Layouts by the bytes of their metadata, those of the dependencies first.
#[derive(Default)]
pub struct LayoutCache {
    by_dependencies: HashMap<Box<[u8]>, LayoutsByMetadata>,
    count: usize,
}

impl LayoutCache {
    fn layout(
        &mut self,
        dependencies_metadata: &[u8],
        objects_metadata: &[u8],
    ) -> Result<Arc<StreamLayout>, WireError> {
        let known = self
            .by_dependencies
            .get(dependencies_metadata)
            .and_then(|inner| inner.get(objects_metadata));
        if let Some(layout) = known {
            return Ok(layout.clone());
        }
        let layout = Arc::new(StreamLayout::parse(dependencies_metadata, objects_metadata)?);
        if self.count == MAX_CACHED_LAYOUTS {
            *self = Self::default();
        }
        self.count += 1;
        let inner = self.by_dependencies.entry(dependencies_metadata.into()).or_default();
        inner.insert(objects_metadata.into(), layout.clone());
        Ok(layout)
    }

    /// The layout of a block's stream and the block's buffers, decompressed.
    pub fn open(&mut self, source: &BlockSource) -> Result<(Arc<StreamLayout>, BlockBuffers), String> {
        let text = |error: WireError| error.to_string();
        let format = Format::parse(&source.format).map_err(text)?;
        let layout = self
            .layout(&source.dependencies_metadata, &source.objects_metadata)
            .map_err(text)?;
        let buffers = BlockBuffers::open(format, &layout, &source.payload, MAX_DECOMPRESSED_BYTES).map_err(text)?;
        Ok((layout, buffers))
    }
}

/// Did the builder know what to do with a record?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Known,
    Unknown,
}

/// Gives every record of a block's objects to `visit`, with its index in the block, and keeps the problems: one that
/// `visit` gives leaves out that event only, a corrupt record ends the block.
pub fn for_each_event<'a>(
    layout: &'a StreamLayout,
    objects: &'a [u8],
    problems: &mut Problems,
    mut visit: impl FnMut(usize, &Record<'a>) -> Result<Seen, WireError>,
) {
    for (index, record) in Records::new(&layout.objects, objects).enumerate() {
        match record {
            Err(error) => problems.add(error),
            Ok(record) => match visit(index, &record) {
                Ok(Seen::Known) => {}
                Ok(Seen::Unknown) => problems.add_unknown(record.index),
                Err(error) => problems.add_event(index, &record.record_type.name, error),
            },
        }
    }
    problems.name_unknown(layout);
}

/// What is left of the bytes that one block may make.
pub struct ValueBudget {
    whole: usize,
    left: usize,
}

impl ValueBudget {
    pub fn of(buffers: &BlockBuffers) -> Self {
        Self::of_bytes(buffers.dependencies.len() + buffers.objects.len())
    }

    /// Of a block that holds so many bytes, decompressed.
    pub fn of_bytes(bytes: usize) -> Self {
        let whole = MAX_REPEATED_VALUE_BYTES + bytes;
        Self { whole, left: whole }
    }

    #[inline]
    pub fn spend(&mut self, bytes: usize) -> Result<(), WireError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(WireError::new(format!(
                "the block's values exceed {} bytes",
                self.whole
            ))),
        }
    }
}

/// Refuses a further block when the largest growing column holds `column_bytes` already.
pub fn check_room(column_bytes: usize) -> PyResult<()> {
    if column_bytes > MAX_COLUMN_BYTES {
        let text = format!("the builder holds {column_bytes} bytes in one column: take() before the next block");
        return Err(PyValueError::new_err(text));
    }
    Ok(())
}

/// A property set as the bytes of its column. `pairs` are those of the wire, in their order.
pub fn encode_property_set<'p>(
    pairs: impl Iterator<Item = (&'p str, &'p str)> + Clone,
    budget: &mut ValueBudget,
) -> Result<Vec<u8>, WireError> {
    budget.spend(pairs.clone().map(|(name, value)| name.len() + value.len()).sum())?;
    jsonb::encode_object(pairs).map_err(WireError::new)
}

/// Values made once for each dependency that events of a block refer to.
pub struct PerDependency<T> {
    slots: Vec<Option<T>>,
}

impl<T: Copy> PerDependency<T> {
    /// `count` is the number of dependencies of the block.
    pub fn new(count: usize) -> Self {
        Self {
            slots: vec![None; count],
        }
    }

    #[inline]
    pub fn get<E>(&mut self, index: DependencyIndex, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let slot = &mut self.slots[index as usize];
        match slot {
            Some(value) => Ok(*value),
            None => {
                let value = make()?;
                *slot = Some(value);
                Ok(value)
            }
        }
    }
}

/// What was wrong with one block, as texts that name the block and its stream.
pub struct Problems {
    texts: Vec<String>,
    count: usize,
    /// Events per record type that no one knows how to read.
    unknown: Vec<usize>,
    place: String,
}

impl Problems {
    pub fn new(source: &BlockSource) -> Self {
        let place = format!("block {} of stream {}", source.block_id, source.stream_id);
        Self {
            texts: Vec::new(),
            count: 0,
            unknown: Vec::new(),
            place,
        }
    }

    pub fn add(&mut self, problem: impl Display) {
        self.count += 1;
        if self.texts.len() < MAX_PROBLEMS {
            self.texts.push(format!("{}: {problem}", self.place));
        }
    }

    /// An event was left out because of `error`.
    pub fn add_event(&mut self, index: usize, type_name: &str, error: impl Display) {
        if self.texts.len() < MAX_PROBLEMS {
            self.add(format_args!("event {index} ({type_name}): {error}"));
        } else {
            self.count += 1;
        }
    }

    /// An event was left out because its type is unknown.
    fn add_unknown(&mut self, type_index: usize) {
        if self.unknown.len() <= type_index {
            self.unknown.resize(type_index + 1, 0);
        }
        self.unknown[type_index] += 1;
    }

    /// Tells of the events left out by `add_unknown`, once per type.
    fn name_unknown(&mut self, layout: &StreamLayout) {
        for (record_type, count) in layout.objects.iter().zip(std::mem::take(&mut self.unknown)) {
            if count > 0 {
                self.add(format_args!("{count} events of unknown type {}", record_type.name));
            }
        }
    }

    pub fn into_texts(mut self) -> Vec<String> {
        let left_out = self.count - self.texts.len();
        if left_out > 0 {
            self.texts.push(format!("{}: {left_out} more problems", self.place));
        }
        self.texts
    }
}
