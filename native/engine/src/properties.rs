//! The kernels behind the SQL functions on property sets: JSONB objects of texts, one dictionary value per distinct set.
//! They must never decode a dictionary into rows: a million rows often share ten property sets.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{make_array, Array, ArrayRef, Int32Array, ListArray};
use arrow_data::transform::MutableArrayData;
use arrow_schema::DataType;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrow_py::{import_array, value_error, ArrowArray};
use crate::byte_column::ByteColumn;
use crate::interner::{dictionary, Interner};
use crate::json_text;
use crate::jsonb::{encode_object, Value};
use crate::jsonb_functions::member;

/// property sets (JSONB, plain or dictionary), key (utf8) → dictionary<int32, utf8>.
///
/// The key matches in any ASCII case. A string comes without quotes, another value as JSON text, a missing one as NULL.
#[pyfunction]
pub fn property_get(py: Python<'_>, properties: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let (properties, key) = (import_array(properties)?, import_array(key)?);
    let kernel = || {
        let mut text = String::new();
        member(&properties, &key, true, |value, interner| {
            if let Value::String(value) = value {
                return Ok(interner.intern_str(value));
            }
            text.clear();
            json_text::format(&value, &mut text)?;
            Ok(interner.intern_str(&text))
        })
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// property sets → int32, the number of properties; NULL for what is no object.
#[pyfunction]
pub fn properties_length(py: Python<'_>, properties: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(properties)?;
    let kernel = || -> Result<ArrayRef, String> {
        let lengths = ByteColumn::new(&array, "argument 1")?.map(|bytes| {
            Ok(match Value::parse(bytes)? {
                Value::Object(object) => Some(object.len() as i32),
                _ => None,
            })
        })?;
        Ok(Arc::new(Int32Array::from(lengths)))
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// list<struct<key: utf8, value: utf8>>, plain or dictionary → dictionary<int32, binary>.
///
/// The last of equal keys wins, an empty list gives an empty object, a NULL list NULL; a NULL key is an error, a NULL
/// value drops its key. JSONB columns pass through as a dictionary.
#[pyfunction]
pub fn properties_to_jsonb(py: Python<'_>, properties: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(properties)?;
    py.detach(|| property_sets(&array))
        .map(ArrowArray::new)
        .map_err(value_error)
}

fn property_sets(array: &ArrayRef) -> Result<ArrayRef, String> {
    let mut interner = Interner::new();
    let keys: Vec<i32> = match array.data_type() {
        DataType::List(_) => encode_lists(array.as_list::<i32>(), &mut interner)?,
        DataType::Dictionary(_, value_type) if matches!(value_type.as_ref(), DataType::List(_)) => {
            let lists = array.as_any_dictionary();
            let encoded = encode_lists(lists.values().as_list::<i32>(), &mut interner)?;
            let slots = if encoded.is_empty() {
                vec![0; array.len()]
            } else {
                lists.normalized_keys()
            };
            let valid = |row: usize| lists.keys().is_valid(row);
            slots
                .iter()
                .enumerate()
                .map(|(row, slot)| if valid(row) { encoded[*slot] } else { -1 })
                .collect()
        }
        _ => {
            let column = ByteColumn::new(array, "argument 1")?;
            let keys = column.map(|bytes| Ok(Some(interner.intern(bytes))))?;
            keys.into_iter().map(|key| key.unwrap_or(-1)).collect()
        }
    };
    dictionary(keys, Arc::new(interner.take_binaries("properties")?))
}

/// The columns of keys and values of lists of pairs.
fn pairs_of(lists: &ListArray) -> Result<(ByteColumn, ByteColumn), String> {
    let shape = || format!("properties: {} is no list of key and value texts", lists.data_type());
    let pairs = lists
        .values()
        .as_struct_opt()
        .filter(|pairs| pairs.num_columns() == 2)
        .ok_or_else(shape)?;
    let keys = ByteColumn::new(pairs.column(0), "property key")?;
    let values = ByteColumn::new(pairs.column(1), "property value")?;
    Ok((keys, values))
}

fn encode_lists(lists: &ListArray, interner: &mut Interner) -> Result<Vec<i32>, String> {
    let (keys, values) = pairs_of(lists)?;
    let mut out = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        if lists.is_null(row) {
            out.push(-1);
            continue;
        }
        let mut set = Vec::new();
        for item in lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize {
            let key = keys
                .slot(item)
                .ok_or_else(|| format!("row {row}: property key is NULL"))?;
            if let Some(value) = values.slot(item) {
                set.push((keys.text(key)?, values.text(value)?));
            }
        }
        out.push(interner.intern(&encode_object(set)?));
    }
    Ok(out)
}

/// list<struct<key: utf8, value: utf8>> → dictionary<int32, that list>, equal lists once. NULL for NULL.
#[pyfunction]
pub fn properties_to_dict(py: Python<'_>, properties: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(properties)?;
    py.detach(|| distinct_lists(&array))
        .map(ArrowArray::new)
        .map_err(value_error)
}

fn distinct_lists(array: &ArrayRef) -> Result<ArrayRef, String> {
    let lists = array
        .as_list_opt::<i32>()
        .ok_or_else(|| format!("properties: {} is no list", array.data_type()))?;
    let (keys, values) = pairs_of(lists)?;
    let mut interner = Interner::new();
    let mut first_rows: Vec<usize> = Vec::new();
    let mut slots = Vec::with_capacity(lists.len());
    let mut written = Vec::new();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            slots.push(-1);
            continue;
        }
        written.clear();
        for item in lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize {
            for column in [&keys, &values] {
                // a length that no text has stands for NULL
                let text = column.slot(item).map(|slot| column.bytes(slot));
                written.extend_from_slice(&text.map_or(usize::MAX, <[u8]>::len).to_le_bytes());
                written.extend_from_slice(text.unwrap_or_default());
            }
        }
        let slot = interner.intern(&written);
        if slot as usize == first_rows.len() {
            first_rows.push(row);
        }
        slots.push(slot);
    }
    let data = lists.to_data();
    let mut distinct = MutableArrayData::new(vec![&data], false, first_rows.len());
    for row in first_rows {
        distinct
            .try_extend(0, row, row + 1)
            .map_err(|error| error.to_string())?;
    }
    dictionary(slots, make_array(distinct.freeze()))
}

/// The JSONB bytes of one property set; the last of equal keys wins.
#[pyfunction]
pub fn encode_properties<'py>(py: Python<'py>, pairs: Vec<(String, String)>) -> PyResult<Bound<'py, PyBytes>> {
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Ok(PyBytes::new(py, &encode_object(pairs).map_err(value_error)?))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(property_get, module)?)?;
    module.add_function(wrap_pyfunction!(properties_length, module)?)?;
    module.add_function(wrap_pyfunction!(properties_to_jsonb, module)?)?;
    module.add_function(wrap_pyfunction!(properties_to_dict, module)?)?;
    module.add_function(wrap_pyfunction!(encode_properties, module)?)
}
