//! The kernels behind functions in FROM over values: a list of rows for each value, which SQL unnests.
//! They must check what a list takes before they take it: values come from strangers.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, Float64Array, ListArray, StringArray, StructArray, UInt64Array};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use pyo3::prelude::*;

use crate::arrow_py::{import_array, value_error, ArrowArray};
use crate::byte_column::ByteColumn;
use crate::histogram::Histograms;
use crate::jsonb::{encode_value, Value};

/// Byte strings one behind the other, of together less than 2 GiB.
#[derive(Default)]
struct Bytes {
    ends: Vec<i32>,
    content: Vec<u8>,
}

impl Bytes {
    fn push(&mut self, item: &[u8]) -> Result<(), String> {
        let end =
            i32::try_from(self.content.len() + item.len()).map_err(|_| "values of more than 2 GiB".to_string())?;
        self.content.extend_from_slice(item);
        self.ends.push(end);
        Ok(())
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn parts(self) -> (OffsetBuffer<i32>, Buffer) {
        (offsets(self.ends), Buffer::from_vec(self.content))
    }
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::iter::once(0).chain(ends).collect::<Vec<i32>>()))
}

/// Where the list of each value ends among the rows.
#[derive(Default)]
struct Lists {
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl Lists {
    fn push(&mut self, rows: usize, is_valid: bool) -> Result<(), String> {
        self.ends
            .push(i32::try_from(rows).map_err(|_| "more than 2^31 rows".to_string())?);
        self.valid.push(is_valid);
        Ok(())
    }

    fn over(self, names: &[&str], columns: Vec<ArrayRef>) -> Result<ArrayRef, String> {
        let fields: Vec<Field> = names
            .iter()
            .zip(&columns)
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), false))
            .collect();
        let rows = StructArray::try_new(fields.into(), columns, None).map_err(|error| error.to_string())?;
        let item = Arc::new(Field::new("item", rows.data_type().clone(), true));
        let nulls = NullBuffer::from(self.valid);
        let lists = ListArray::try_new(item, offsets(self.ends), Arc::new(rows), Some(nulls));
        Ok(Arc::new(lists.map_err(|error| error.to_string())?))
    }
}

/// An outer join marks the row that stands for none with a NULL in `is_row`.
fn refuse_no_row(is_row: &ArrayRef, rows: usize, function: &str) -> Result<(), String> {
    if is_row.len() != rows || is_row.data_type() != &DataType::Boolean {
        return Err(format!("{function}: {} of {}", is_row.data_type(), is_row.len()));
    }
    if is_row.null_count() > 0 {
        return Err(format!("{function}: the subquery has no row"));
    }
    Ok(())
}

/// JSONB, bool → list<struct<key: utf8, value: binary>>: the members of an object, the elements of an array with their
/// index for a key. NULL for NULL. Errors: a scalar; a NULL in the second column, which tells of no row.
#[pyfunction]
pub fn jsonb_members(py: Python<'_>, jsonb: &Bound<'_, PyAny>, is_row: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let (jsonb, is_row) = (import_array(jsonb)?, import_array(is_row)?);
    let kernel = || -> Result<ArrayRef, String> {
        refuse_no_row(&is_row, jsonb.len(), "jsonb_each")?;
        let column = ByteColumn::new(&jsonb, "argument 1")?;
        let (mut keys, mut values, mut lists) = (Bytes::default(), Bytes::default(), Lists::default());
        for row in 0..column.len() {
            let slot = column.slot(row);
            match slot.map(|slot| Value::parse(column.bytes(slot))).transpose()? {
                None => {}
                Some(Value::Object(object)) => {
                    for member in object.iter()? {
                        let (key, value) = member?;
                        keys.push(key.as_bytes())?;
                        values.push(&encode_value(&value)?)?;
                    }
                }
                Some(Value::Array(array)) => {
                    for (index, value) in array.iter().enumerate() {
                        keys.push(index.to_string().as_bytes())?;
                        values.push(&encode_value(&value?)?)?;
                    }
                }
                Some(_) => return Err("jsonb_each: neither an object nor an array".to_string()),
            }
            lists.push(values.len(), slot.is_some())?;
        }
        let (key_ends, key_bytes) = keys.parts();
        let keys = StringArray::try_new(key_ends, key_bytes, None).map_err(|error| error.to_string())?;
        lists.over(&["key", "value"], vec![Arc::new(keys), binaries(values)?])
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// JSONB → list<struct<value: binary>>: the elements of an array. NULL for NULL, an error for what is no array.
#[pyfunction]
pub fn jsonb_elements(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let jsonb = import_array(jsonb)?;
    let kernel = || -> Result<ArrayRef, String> {
        let column = ByteColumn::new(&jsonb, "argument 1")?;
        let (mut values, mut lists) = (Bytes::default(), Lists::default());
        for row in 0..column.len() {
            let slot = column.slot(row);
            match slot.map(|slot| Value::parse(column.bytes(slot))).transpose()? {
                None => {}
                Some(Value::Array(array)) => {
                    for value in array.iter() {
                        values.push(&encode_value(&value?)?)?;
                    }
                }
                Some(_) => return Err("jsonb_array_elements: not an array".to_string()),
            }
            lists.push(values.len(), slot.is_some())?;
        }
        lists.over(&["value"], vec![binaries(values)?])
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

fn binaries(values: Bytes) -> Result<ArrayRef, String> {
    let (ends, content) = values.parts();
    let array = BinaryArray::try_new(ends, content, None).map_err(|error| error.to_string())?;
    Ok(Arc::new(array))
}

/// histogram, bool → list<struct<bin_center: float64, count: uint64>>, a row per bin. A range of width 0 counts as one
/// with bins of width 1. NULL for NULL; an error for a NULL in the second column, which tells of no row.
#[pyfunction]
pub fn histogram_bars(py: Python<'_>, histogram: &Bound<'_, PyAny>, is_row: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let (array, is_row) = (import_array(histogram)?, import_array(is_row)?);
    let kernel = || -> Result<ArrayRef, String> {
        refuse_no_row(&is_row, array.len(), "expand_histogram")?;
        let histograms = Histograms::new(&array)?;
        let (mut centers, mut counts, mut lists) = (Vec::new(), Vec::new(), Lists::default());
        for row in 0..array.len() {
            let is_valid = histograms.array.is_valid(row);
            if is_valid {
                let bounds = histograms.bounds(row)?;
                let bins = histograms.bins(row);
                centers.extend((0..bins.len()).map(|bin| bounds.center(bin)));
                counts.extend_from_slice(bins);
            }
            lists.push(counts.len(), is_valid)?;
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(centers)),
            Arc::new(UInt64Array::from(counts)),
        ];
        lists.over(&["bin_center", "count"], columns)
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(jsonb_members, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_elements, module)?)?;
    module.add_function(wrap_pyfunction!(histogram_bars, module)?)
}
