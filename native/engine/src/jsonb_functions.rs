//! The kernels behind the SQL functions `jsonb_*`: columns in, a column out, one evaluation per distinct value.
//! A NULL row gives NULL; bytes that are no JSONB give an error, never a guess.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use pyo3::prelude::*;

use crate::arrow_py::{import_array, value_error, ArrowArray};
use crate::byte_column::ByteColumn;
use crate::interner::{dictionary, Interner};
use crate::json_path::Path;
use crate::json_text;
use crate::jsonb::{encode, encode_array, encode_value, Number, Object, Value};

/// Bytes that the distinct results of a batch may have beyond those of its documents: a path can name one value any
/// number of times, and each row another path.
const MAX_GROWTH_BYTES: usize = 128 << 20;

/// Values that one text may hold: a byte of it can stand for one, which takes forty while it is parsed.
const MAX_PARSED_VALUES: usize = 1 << 24;

/// Runs a kernel of one column without the GIL.
fn unary(
    py: Python<'_>,
    column: &Bound<'_, PyAny>,
    kernel: impl FnOnce(&ByteColumn) -> Result<ArrayRef, String> + Send,
) -> PyResult<ArrowArray> {
    let array = import_array(column)?;
    py.detach(|| kernel(&ByteColumn::new(&array, "argument 1")?))
        .map(ArrowArray::new)
        .map_err(value_error)
}

/// A dictionary of texts or bytes from one function per distinct value.
fn to_dictionary(
    column: &ByteColumn,
    as_text: bool,
    mut function: impl FnMut(&[u8], &mut Interner) -> Result<Option<i32>, String>,
) -> Result<ArrayRef, String> {
    let mut interner = Interner::new();
    let keys = column.map(|bytes| function(bytes, &mut interner))?;
    let keys = keys.into_iter().map(|key| key.unwrap_or(-1)).collect();
    let values: ArrayRef = if as_text {
        Arc::new(interner.take_strings("result")?)
    } else {
        Arc::new(interner.take_binaries("result")?)
    };
    dictionary(keys, values)
}

/// utf8 → dictionary<int32, binary>; a text that is no JSON gives NULL.
#[pyfunction]
pub fn jsonb_parse(py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, text, |column| {
        to_dictionary(column, false, |bytes, interner| {
            check_values(bytes)?;
            let Ok(tree) = std::str::from_utf8(bytes)
                .map_err(|error| error.to_string())
                .and_then(json_text::parse)
            else {
                return Ok(None);
            };
            Ok(Some(interner.intern(&encode(&tree)?)))
        })
    })
}

/// Refuses a text of too many values. Each of them begins a container or stands behind what begins one, or a comma.
fn check_values(text: &[u8]) -> Result<(), String> {
    let begins_value = |byte: &&u8| matches!(byte, b',' | b'[' | b'{');
    if text.len() > MAX_PARSED_VALUES && text.iter().filter(begins_value).count() > MAX_PARSED_VALUES {
        return Err(format!(
            "json: a text of {} bytes holds more than {MAX_PARSED_VALUES} values",
            text.len()
        ));
    }
    Ok(())
}

/// JSONB → dictionary<int32, utf8>, the compact text.
#[pyfunction]
pub fn jsonb_format_json(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, jsonb, |column| {
        let mut text = String::new();
        to_dictionary(column, true, |bytes, interner| {
            text.clear();
            json_text::format(&Value::parse(bytes)?, &mut text)?;
            Ok(Some(interner.intern_str(&text)))
        })
    })
}

/// JSONB → dictionary<int32, utf8>; NULL for what is no string.
#[pyfunction]
pub fn jsonb_as_string(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, jsonb, |column| {
        to_dictionary(column, true, |bytes, interner| match Value::parse(bytes)? {
            Value::String(text) => Ok(Some(interner.intern_str(text))),
            _ => Ok(None),
        })
    })
}

/// JSONB → float64; NULL for what is no number.
#[pyfunction]
pub fn jsonb_as_f64(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, jsonb, |column| {
        let numbers = column.map(|bytes| {
            Ok(match Value::parse(bytes)? {
                Value::Number(Number::Signed(value)) => Some(value as f64),
                Value::Number(Number::Unsigned(value)) => Some(value as f64),
                Value::Number(Number::Float(value)) => Some(value),
                _ => None,
            })
        })?;
        Ok(Arc::new(Float64Array::from(numbers)))
    })
}

/// JSONB → int64; NULL for what is no number, has a fraction or does not fit.
#[pyfunction]
pub fn jsonb_as_i64(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, jsonb, |column| {
        let numbers = column.map(|bytes| {
            Ok(match Value::parse(bytes)? {
                Value::Number(Number::Signed(value)) => Some(value),
                Value::Number(Number::Unsigned(value)) => i64::try_from(value).ok(),
                Value::Number(Number::Float(value)) => integral(value),
                _ => None,
            })
        })?;
        Ok(Arc::new(Int64Array::from(numbers)))
    })
}

fn integral(value: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (value.fract() == 0.0 && (-LIMIT..LIMIT).contains(&value)).then_some(value as i64)
}

/// JSONB → int64; NULL for what is no array.
#[pyfunction]
pub fn jsonb_array_length(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, jsonb, |column| {
        let lengths = column.map(|bytes| {
            Ok(match Value::parse(bytes)? {
                Value::Array(array) => Some(array.len() as i64),
                _ => None,
            })
        })?;
        Ok(Arc::new(Int64Array::from(lengths)))
    })
}

/// JSONB → dictionary<int32, list<utf8>>, keys in stored order; NULL for what is no object.
#[pyfunction]
pub fn jsonb_object_keys(py: Python<'_>, jsonb: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    unary(py, jsonb, |column| {
        let mut names: Vec<String> = Vec::new();
        let mut ends = vec![0_i32];
        let keys = column.map(|bytes| {
            let Value::Object(object) = Value::parse(bytes)? else {
                return Ok(None);
            };
            append_keys(object, &mut names)?;
            ends.push(i32::try_from(names.len()).map_err(|_| "object keys: more than 2^31".to_string())?);
            Ok(Some(ends.len() as i32 - 2))
        })?;
        let field = Arc::new(Field::new("item", DataType::Utf8, true));
        let names = Arc::new(arrow_array::StringArray::from(names));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let lists = ListArray::try_new(field, offsets, names, None).map_err(|error| error.to_string())?;
        let keys = Int32Array::from(keys);
        let array = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(lists)).map_err(|error| error.to_string())?;
        Ok(Arc::new(array))
    })
}

fn append_keys(object: Object<'_>, names: &mut Vec<String>) -> Result<(), String> {
    for key in object.keys() {
        names.push(key?.to_string());
    }
    Ok(())
}

/// JSONB, utf8 → dictionary<int32, binary>: the member of that name; NULL when there is none or for no object.
#[pyfunction]
pub fn jsonb_get(py: Python<'_>, jsonb: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let (jsonb, name) = (import_array(jsonb)?, import_array(name)?);
    let kernel = || {
        member(&jsonb, &name, false, |value, interner| {
            Ok(interner.intern(&encode_value(&value)?))
        })
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// JSONB, utf8 → dictionary<int32, binary>: the first value that the path leads to, NULL when there is none.
#[pyfunction]
pub fn jsonb_path_query_first(
    py: Python<'_>,
    jsonb: &Bound<'_, PyAny>,
    path: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    let (jsonb, path) = (import_array(jsonb)?, import_array(path)?);
    let kernel = || {
        by_text(&jsonb, &path, false, Path::parse, |value, path, interner| {
            match path.select(value)?.first() {
                Some(found) => Ok(interner.intern(&encode_value(found)?)),
                None => Ok(-1),
            }
        })
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// JSONB, utf8 → dictionary<int32, binary>: an array of all values that the path leads to.
#[pyfunction]
pub fn jsonb_path_query(py: Python<'_>, jsonb: &Bound<'_, PyAny>, path: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let (jsonb, path) = (import_array(jsonb)?, import_array(path)?);
    let kernel = || {
        by_text(&jsonb, &path, false, Path::parse, |value, path, interner| {
            Ok(interner.intern(&encode_array(&path.select(value)?)?))
        })
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// The members of objects by name as a dictionary of what `render` makes of them.
pub fn member(
    objects: &ArrayRef,
    names: &ArrayRef,
    as_text: bool,
    mut render: impl FnMut(Value<'_>, &mut Interner) -> Result<i32, String>,
) -> Result<ArrayRef, String> {
    let name_of = |name: &str| Ok(name.to_string());
    by_text(objects, names, as_text, name_of, |value, name, interner| match value {
        Value::Object(found) => match found.get(name)? {
            Some(value) => render(value, interner),
            None => Ok(-1),
        },
        _ => Ok(-1),
    })
}

/// A dictionary of what `function` makes of JSONB values and of what `prepare` makes of texts: once per pair of distinct
/// value and distinct text. A negative key is NULL.
fn by_text<P>(
    objects: &ArrayRef,
    names: &ArrayRef,
    as_text: bool,
    prepare: impl Fn(&str) -> Result<P, String>,
    mut function: impl FnMut(Value<'_>, &P, &mut Interner) -> Result<i32, String>,
) -> Result<ArrayRef, String> {
    let objects = ByteColumn::new(objects, "argument 1")?;
    let names = ByteColumn::new(names, "argument 2")?;
    if objects.len() != names.len() {
        return Err(format!("columns of {} and {} rows", objects.len(), names.len()));
    }
    let mut interner = Interner::new();
    let mut keys = Vec::with_capacity(objects.len());
    // a literal name arrives as a column that repeats it, so results are kept as long as the name stays the same
    let mut results: Vec<Option<i32>> = vec![None; objects.slots()];
    let mut current: Option<(usize, P)> = None;
    let mut used: Vec<usize> = Vec::new();
    let mut is_counted = vec![false; objects.slots()];
    let mut room = MAX_GROWTH_BYTES;
    for row in 0..objects.len() {
        let (Some(object), Some(name)) = (objects.slot(row), names.slot(row)) else {
            keys.push(-1);
            continue;
        };
        let prepared = match current.take() {
            Some((same, prepared)) if same == name || names.bytes(same) == names.bytes(name) => prepared,
            _ => {
                used.drain(..).for_each(|slot| results[slot] = None);
                names.text(name).and_then(&prepare)?
            }
        };
        let key = match results[object] {
            Some(key) => key,
            None => {
                used.push(object);
                let bytes = objects.bytes(object);
                if !std::mem::replace(&mut is_counted[object], true) {
                    room += bytes.len();
                }
                let key = Value::parse(bytes).and_then(|value| function(value, &prepared, &mut interner));
                if interner.value_bytes() > room {
                    return Err(format!("row {row}: the results of a batch exceed {room} bytes"));
                }
                *results[object].insert(key.map_err(|error| format!("row {row}: {error}"))?)
            }
        };
        current = Some((name, prepared));
        keys.push(key);
    }
    let values: ArrayRef = if as_text {
        Arc::new(interner.take_strings("result")?)
    } else {
        Arc::new(interner.take_binaries("result")?)
    };
    dictionary(keys, values)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(jsonb_parse, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_format_json, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_as_string, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_as_f64, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_as_i64, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_array_length, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_object_keys, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_get, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_path_query, module)?)?;
    module.add_function(wrap_pyfunction!(jsonb_path_query_first, module)?)
}
