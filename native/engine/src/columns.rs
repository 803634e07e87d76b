//! Columns that grow row by row: texts, dictionaries, times, and those that repeat the block's process in each row.
//! No column is ever NULL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray, UInt32Array};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, TimeUnit};

use crate::block_source::BlockSource;
use crate::interner::{dictionary, Interner};
use crate::jsonb;

pub const TIME_ZONE: &str = "+00:00";

pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(TIME_ZONE.into()))
}

fn dictionary_of(values: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(values))
}

pub fn text_dictionary_type() -> DataType {
    dictionary_of(DataType::Utf8)
}

pub fn jsonb_dictionary_type() -> DataType {
    dictionary_of(DataType::Binary)
}

pub fn column(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

pub fn take_wide(values: &mut Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(std::mem::take(values)))
}

pub fn take_narrow(values: &mut Vec<u32>) -> ArrayRef {
    Arc::new(UInt32Array::from(std::mem::take(values)))
}

/// A dictionary column of texts, or of JSONB objects.
#[derive(Default)]
pub struct DictionaryColumn {
    pub values: Interner,
    keys: Vec<i32>,
}

impl DictionaryColumn {
    #[inline]
    pub fn push(&mut self, key: i32) {
        self.keys.push(key);
    }

    pub fn repeat(&mut self, value: &[u8], rows: usize) {
        if rows > 0 {
            let key = self.values.intern(value);
            self.keys.resize(self.keys.len() + rows, key);
        }
    }

    /// Bytes of the distinct values.
    pub fn value_bytes(&self) -> usize {
        self.values.value_bytes()
    }

    pub fn bytes(&self) -> usize {
        self.keys.len() * size_of::<i32>() + self.values.value_bytes()
    }

    /// Bytes of several columns.
    pub fn all_bytes<const N: usize>(columns: [&Self; N]) -> usize {
        columns.map(Self::bytes).into_iter().sum()
    }

    /// Bytes of the distinct values of the one of several columns that has most.
    pub fn largest<const N: usize>(columns: [&Self; N]) -> usize {
        columns.map(Self::value_bytes).into_iter().max().unwrap_or(0)
    }

    pub fn take_texts(&mut self, what: &str) -> Result<ArrayRef, String> {
        let values = self.values.take_strings(what)?;
        dictionary(std::mem::take(&mut self.keys), Arc::new(values))
    }

    pub fn take_jsonb(&mut self, what: &str) -> Result<ArrayRef, String> {
        let values = self.values.take_binaries(what)?;
        dictionary(std::mem::take(&mut self.keys), Arc::new(values))
    }
}

/// Keys of one dictionary as those of another that takes over what it needs: each text is looked at once, however many
/// rows have it.
pub struct MovedKeys<'v> {
    from: &'v Interner,
    keys: HashMap<i32, i32>,
}

impl<'v> MovedKeys<'v> {
    pub fn from(column: &'v DictionaryColumn) -> Self {
        Self {
            from: &column.values,
            keys: HashMap::new(),
        }
    }

    /// The key in `to`, always the same column, of what has the key `key` here.
    pub fn key(&mut self, key: i32, to: &mut DictionaryColumn) -> i32 {
        let from = self.from;
        *self
            .keys
            .entry(key)
            .or_insert_with(|| to.values.intern(from.value(key)))
    }
}

/// A plain text column.
#[derive(Default)]
pub struct TextColumn {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl TextColumn {
    /// The caller keeps the column below the 2 GiB that Arrow's offsets can tell.
    #[inline]
    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        debug_assert!(self.bytes.len() <= i32::MAX as usize);
        self.ends.push(self.bytes.len() as i32);
    }

    pub fn repeat(&mut self, text: &str, rows: usize) {
        for _ in 0..rows {
            self.push(text);
        }
    }

    /// Bytes of all the texts.
    pub fn text_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<i32>()
    }

    pub fn take(&mut self) -> Result<ArrayRef, String> {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        offsets.append(&mut self.ends);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let bytes = Buffer::from_vec(std::mem::take(&mut self.bytes));
        Ok(Arc::new(
            StringArray::try_new(offsets, bytes, None).map_err(|error| error.to_string())?,
        ))
    }
}

/// A column of times in ns since the epoch, with its bounds.
#[derive(Default)]
pub struct TimeColumn {
    times: Vec<i64>,
    bounds: Option<(i64, i64)>,
}

impl TimeColumn {
    #[inline]
    pub fn push(&mut self, time: i64) {
        self.times.push(time);
        self.bounds = Some(match self.bounds {
            None => (time, time),
            Some((min, max)) => (min.min(time), max.max(time)),
        });
    }

    pub fn repeat(&mut self, time: i64, rows: usize) {
        self.times.resize(self.times.len() + rows, time);
    }

    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Least and greatest of the times that were pushed.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        self.bounds
    }

    pub fn bytes(&self) -> usize {
        self.times.len() * size_of::<i64>()
    }

    pub fn take(&mut self) -> ArrayRef {
        let Self { times, .. } = std::mem::take(self);
        Arc::new(TimestampNanosecondArray::from(times).with_timezone(TIME_ZONE))
    }
}

/// The columns that repeat what is known of the block and its process, for all the block's rows at once.
#[derive(Default)]
pub struct ProcessColumns {
    process_id: DictionaryColumn,
    stream_id: DictionaryColumn,
    block_id: DictionaryColumn,
    insert_time: TimeColumn,
    exe: DictionaryColumn,
    username: DictionaryColumn,
    computer: DictionaryColumn,
    properties: DictionaryColumn,
}

impl ProcessColumns {
    pub fn leading_fields() -> Vec<Field> {
        vec![
            column("process_id", text_dictionary_type()),
            column("stream_id", text_dictionary_type()),
            column("block_id", text_dictionary_type()),
            column("insert_time", time_type()),
            column("exe", text_dictionary_type()),
            column("username", text_dictionary_type()),
            column("computer", text_dictionary_type()),
        ]
    }

    pub fn repeat(&mut self, source: &BlockSource, rows: usize) -> Result<(), String> {
        let pairs = source
            .process_properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let properties = jsonb::encode_object(pairs)?;
        self.process_id.repeat(source.process_id.as_bytes(), rows);
        self.stream_id.repeat(source.stream_id.as_bytes(), rows);
        self.block_id.repeat(source.block_id.as_bytes(), rows);
        self.insert_time.repeat(source.insert_time, rows);
        self.exe.repeat(source.exe.as_bytes(), rows);
        self.username.repeat(source.username.as_bytes(), rows);
        self.computer.repeat(source.computer.as_bytes(), rows);
        self.properties.repeat(&properties, rows);
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        let dictionaries = [
            &self.process_id,
            &self.stream_id,
            &self.block_id,
            &self.exe,
            &self.username,
            &self.computer,
            &self.properties,
        ];
        DictionaryColumn::all_bytes(dictionaries) + self.insert_time.bytes()
    }

    pub fn take_leading(&mut self) -> Result<Vec<ArrayRef>, String> {
        Ok(vec![
            self.process_id.take_texts("process_id")?,
            self.stream_id.take_texts("stream_id")?,
            self.block_id.take_texts("block_id")?,
            self.insert_time.take(),
            self.exe.take_texts("exe")?,
            self.username.take_texts("username")?,
            self.computer.take_texts("computer")?,
        ])
    }

    pub fn take_properties(&mut self) -> Result<ArrayRef, String> {
        self.properties.take_jsonb("process_properties")
    }
}
