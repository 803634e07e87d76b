//! The kernels behind the SQL functions on property sets: JSONB objects of texts, one dictionary value per distinct set.
//! They must never decode a dictionary into rows: a million rows often share ten property sets.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int32Array, ListArray};
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

fn encode_lists(lists: &ListArray, interner: &mut Interner) -> Result<Vec<i32>, String> {
    let shape = || format!("properties: {} is no list of key and value texts", lists.data_type());
    let pairs = lists
        .values()
        .as_struct_opt()
        .filter(|pairs| pairs.num_columns() == 2)
        .ok_or_else(shape)?;
    let keys = ByteColumn::new(pairs.column(0), "property key")?;
    let values = ByteColumn::new(pairs.column(1), "property value")?;
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
    module.add_function(wrap_pyfunction!(encode_properties, module)?)
}
