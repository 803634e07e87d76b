//! Rows of a batch as the encoder reads them: columns found by name and checked once, texts by their dictionary keys.

use arrow_array::types::{Int32Type, TimestampNanosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int32Array, Int64Array, PrimitiveArray, StringArray,
    StructArray, UInt32Array,
};

/// A column by name, of the type asked for, without NULLs.
fn column<'a, T: 'static>(rows: &'a StructArray, name: &str) -> Result<&'a T, String> {
    let array: &ArrayRef = rows
        .column_by_name(name)
        .ok_or_else(|| format!("rows without a column {name}"))?;
    if array.null_count() > 0 {
        return Err(format!("column {name} holds NULL"));
    }
    let found = array.data_type().clone();
    array
        .as_any()
        .downcast_ref::<T>()
        .ok_or_else(|| format!("column {name} is {found}"))
}

fn times(rows: &StructArray, name: &str) -> Result<Vec<i64>, String> {
    Ok(column::<PrimitiveArray<TimestampNanosecondType>>(rows, name)?
        .values()
        .to_vec())
}

/// Texts of a dictionary, each with a number of the encoder's that is looked up when it is first met.
pub struct TextColumn {
    keys: Int32Array,
    values: StringArray,
    numbers: Vec<Option<u32>>,
}

impl TextColumn {
    fn of(rows: &StructArray, name: &str) -> Result<Self, String> {
        let dictionary = column::<DictionaryArray<Int32Type>>(rows, name)?;
        let values = dictionary.values();
        let values = values
            .as_any()
            .downcast_ref::<StringArray>()
            .ok_or_else(|| format!("column {name} is a dictionary of {}", values.data_type()))?;
        Ok(Self {
            keys: dictionary.keys().clone(),
            values: values.clone(),
            numbers: vec![None; values.len()],
        })
    }

    pub fn text(&self, row: usize) -> &str {
        self.values.value(self.keys.value(row) as usize)
    }

    #[inline]
    pub fn number(&mut self, row: usize, number_of: impl FnOnce(&str) -> u32) -> u32 {
        let key = self.keys.value(row) as usize;
        match self.numbers[key] {
            Some(number) => number,
            None => {
                let number = number_of(self.values.value(key));
                self.numbers[key] = Some(number);
                number
            }
        }
    }

    /// Numbers have lost their meaning.
    pub fn forget(&mut self) {
        self.numbers.fill(None);
    }
}

/// JSONB objects of a dictionary.
pub struct PropertiesColumn {
    keys: Int32Array,
    values: BinaryArray,
}

impl PropertiesColumn {
    fn of(rows: &StructArray, name: &str) -> Result<Self, String> {
        let dictionary = column::<DictionaryArray<Int32Type>>(rows, name)?;
        let values = dictionary.values();
        let values = values
            .as_any()
            .downcast_ref::<BinaryArray>()
            .ok_or_else(|| format!("column {name} is a dictionary of {}", values.data_type()))?;
        Ok(Self {
            keys: dictionary.keys().clone(),
            values: values.clone(),
        })
    }

    pub fn jsonb(&self, row: usize) -> &[u8] {
        self.values.value(self.keys.value(row) as usize)
    }
}

/// Rows of `process_spans`.
pub struct SpanRows {
    pub stream_id: TextColumn,
    pub id: Vec<i64>,
    pub parent: Vec<i64>,
    pub depth: Vec<u32>,
    pub begin: Vec<i64>,
    pub end: Vec<i64>,
    pub name: TextColumn,
    pub target: TextColumn,
    pub filename: TextColumn,
    pub line: Vec<u32>,
}

impl SpanRows {
    pub fn of(rows: &StructArray) -> Result<Self, String> {
        Ok(Self {
            stream_id: TextColumn::of(rows, "stream_id")?,
            id: column::<Int64Array>(rows, "id")?.values().to_vec(),
            parent: column::<Int64Array>(rows, "parent")?.values().to_vec(),
            depth: column::<UInt32Array>(rows, "depth")?.values().to_vec(),
            begin: times(rows, "begin")?,
            end: times(rows, "end")?,
            name: TextColumn::of(rows, "name")?,
            target: TextColumn::of(rows, "target")?,
            filename: TextColumn::of(rows, "filename")?,
            line: column::<UInt32Array>(rows, "line")?.values().to_vec(),
        })
    }
}

/// Rows of `process_spans`, as far as frames need them.
pub struct FrameRows {
    pub stream_id: TextColumn,
    pub thread_name: TextColumn,
    pub id: Vec<i64>,
    pub depth: Vec<u32>,
    pub begin: Vec<i64>,
    pub end: Vec<i64>,
    pub name: TextColumn,
    pub target: TextColumn,
}

impl FrameRows {
    pub fn of(rows: &StructArray) -> Result<Self, String> {
        Ok(Self {
            stream_id: TextColumn::of(rows, "stream_id")?,
            thread_name: TextColumn::of(rows, "thread_name")?,
            id: column::<Int64Array>(rows, "id")?.values().to_vec(),
            depth: column::<UInt32Array>(rows, "depth")?.values().to_vec(),
            begin: times(rows, "begin")?,
            end: times(rows, "end")?,
            name: TextColumn::of(rows, "name")?,
            target: TextColumn::of(rows, "target")?,
        })
    }
}

/// Rows of `measures`.
pub struct MeasureRows {
    pub time: Vec<i64>,
    pub target: TextColumn,
    pub name: TextColumn,
    pub unit: TextColumn,
    pub value: Vec<f64>,
    pub properties: PropertiesColumn,
}

impl MeasureRows {
    pub fn of(rows: &StructArray) -> Result<Self, String> {
        Ok(Self {
            time: times(rows, "time")?,
            target: TextColumn::of(rows, "target")?,
            name: TextColumn::of(rows, "name")?,
            unit: TextColumn::of(rows, "unit")?,
            value: column::<Float64Array>(rows, "value")?.values().to_vec(),
            properties: PropertiesColumn::of(rows, "properties")?,
        })
    }
}

/// Rows of `log_entries`.
pub struct LogRows {
    pub time: Vec<i64>,
    pub target: TextColumn,
    pub level: Vec<i32>,
    pub message: StringArray,
    pub properties: PropertiesColumn,
}

impl LogRows {
    pub fn of(rows: &StructArray) -> Result<Self, String> {
        Ok(Self {
            time: times(rows, "time")?,
            target: TextColumn::of(rows, "target")?,
            level: column::<Int32Array>(rows, "level")?.values().to_vec(),
            message: column::<StringArray>(rows, "msg")?.clone(),
            properties: PropertiesColumn::of(rows, "properties")?,
        })
    }
}

/// The pairs of spans that a flow connects: parent and child.
pub fn flows(rows: &StructArray) -> Result<Vec<(i64, i64)>, String> {
    let parents = column::<Int64Array>(rows, "parent")?;
    let children = column::<Int64Array>(rows, "id")?;
    Ok(parents
        .values()
        .iter()
        .copied()
        .zip(children.values().iter().copied())
        .collect())
}
