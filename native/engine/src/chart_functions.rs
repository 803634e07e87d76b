//! The kernels behind the SQL functions for charts: colours as 0xRRGGBBAA, interpolation, centres of bins.
//! Any NULL gives NULL.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, UInt32Array};
use pyo3::prelude::*;

use crate::arrow_py::{import_array, value_error, ArrowArray};
use crate::byte_column::ByteColumn;
use crate::color_scales::{ColorScale, SCALES};

/// Runs a kernel over columns of one length without the GIL.
fn run<const N: usize>(
    py: Python<'_>,
    columns: [&Bound<'_, PyAny>; N],
    kernel: impl FnOnce(&[ArrayRef; N], usize) -> Result<ArrayRef, String> + Send,
) -> PyResult<ArrowArray> {
    let mut arrays = Vec::with_capacity(N);
    for column in columns {
        arrays.push(import_array(column)?);
    }
    let rows = arrays.first().map_or(0, |array| array.len());
    if let Some(other) = arrays.iter().find(|array| array.len() != rows) {
        return Err(value_error(format!("columns of {rows} and {} rows", other.len())));
    }
    let Ok(arrays) = <[ArrayRef; N]>::try_from(arrays) else {
        return Err(value_error("columns are missing"));
    };
    py.detach(|| kernel(&arrays, rows))
        .map(ArrowArray::new)
        .map_err(value_error)
}

fn floats(array: &ArrayRef) -> Result<&Float64Array, String> {
    let type_name = || format!("type {} where Float64 is wanted", array.data_type());
    array.as_primitive_opt::<Float64Type>().ok_or_else(type_name)
}

/// The values of a row, None when one of them is NULL.
fn row_of<const N: usize>(columns: [&Float64Array; N], row: usize) -> Option<[f64; N]> {
    let valid = columns.iter().all(|column| column.is_valid(row));
    valid.then(|| columns.map(|column| column.value(row)))
}

fn float_column<const N: usize>(arrays: &[ArrayRef], function: fn([f64; N]) -> f64) -> Result<ArrayRef, String> {
    let columns: Vec<&Float64Array> = arrays.iter().map(floats).collect::<Result<_, _>>()?;
    let columns = <[&Float64Array; N]>::try_from(columns).map_err(|_| "columns are missing".to_string())?;
    let results = (0..columns[0].len()).map(|row| row_of(columns, row).map(function));
    Ok(Arc::new(results.collect::<Float64Array>()))
}

/// 0 to 255, rounded half up; what lies beyond becomes the nearest end, NaN becomes 0.
fn channel(value: f64) -> u32 {
    (value + 0.5).floor().clamp(0.0, 255.0) as u32
}

fn color(channels: [f64; 4]) -> u32 {
    channels
        .into_iter()
        .fold(0, |packed, value| packed << 8 | channel(value))
}

fn channels(color: u32) -> [f64; 4] {
    color.to_be_bytes().map(f64::from)
}

/// red, green, blue and alpha f64 (0 to 1) → uint32 0xRRGGBBAA. Components beyond 0 and 1 are taken for the nearest.
#[pyfunction]
pub fn rgba(
    py: Python<'_>,
    red: &Bound<'_, PyAny>,
    green: &Bound<'_, PyAny>,
    blue: &Bound<'_, PyAny>,
    alpha: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    run(py, [red, green, blue, alpha], |arrays, rows| {
        let [red, green, blue, alpha] = arrays;
        let columns = [floats(red)?, floats(green)?, floats(blue)?, floats(alpha)?];
        let colors = (0..rows).map(|row| row_of(columns, row).map(|parts| color(parts.map(|part| part * 255.0))));
        Ok(Arc::new(colors.collect::<UInt32Array>()))
    })
}

/// int64 and int64 (0xRRGGBBAA), f64 → uint32: between the colours, each component by itself. Errors: no colour.
#[pyfunction]
pub fn lerp_color(
    py: Python<'_>,
    from: &Bound<'_, PyAny>,
    to: &Bound<'_, PyAny>,
    t: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    run(py, [from, to, t], |[from, to, t], rows| {
        let t = floats(t)?;
        let wrong = || "lerp_color: a colour is no Int64".to_string();
        let from = from.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let to = to.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let checked =
            |number: i64| u32::try_from(number).map_err(|_| format!("lerp_color: {number} is no colour (0xRRGGBBAA)"));
        let mut colors = Vec::with_capacity(rows);
        for row in 0..rows {
            if from.is_null(row) || to.is_null(row) || t.is_null(row) {
                colors.push(None);
                continue;
            }
            let (one, other) = (channels(checked(from.value(row))?), channels(checked(to.value(row))?));
            let t = t.value(row);
            colors.push(Some(color(std::array::from_fn(|part| {
                one[part] + (other[part] - one[part]) * t
            }))));
        }
        Ok(Arc::new(UInt32Array::from(colors)))
    })
}

/// utf8, f64, f64 → uint32: the colour at place t (0 to 1) of a scale, with alpha (0 to 1). Errors: an unknown scale.
#[pyfunction]
pub fn color_scale(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    t: &Bound<'_, PyAny>,
    alpha: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    run(py, [name, t, alpha], |[name, t, alpha], rows| {
        let names = ByteColumn::new(name, "scale")?;
        let numbers = [floats(t)?, floats(alpha)?];
        let mut colors = Vec::with_capacity(rows);
        // a literal name arrives as a column that repeats it
        let mut last: Option<(usize, &ColorScale)> = None;
        for row in 0..rows {
            let (Some(slot), Some([t, alpha])) = (names.slot(row), row_of(numbers, row)) else {
                colors.push(None);
                continue;
            };
            let scale = match last {
                Some((same, scale)) if names.bytes(same) == names.bytes(slot) => scale,
                _ => scale_named(names.text(slot)?)?,
            };
            last = Some((slot, scale));
            let [red, green, blue] = scale.at(t);
            colors.push(Some(color([red, green, blue, alpha * 255.0])));
        }
        Ok(Arc::new(UInt32Array::from(colors)))
    })
}

fn scale_named(name: &str) -> Result<&'static ColorScale, String> {
    ColorScale::named(name).ok_or_else(|| {
        let known: Vec<&str> = SCALES.iter().map(|scale| scale.name).collect();
        format!("color_scale: unknown scale {name:?}, known are {}", known.join(", "))
    })
}

/// a, b and t f64 → a + (b - a) · t.
#[pyfunction]
pub fn lerp(py: Python<'_>, a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>, t: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    run(py, [a, b, t], |arrays, _| {
        float_column(arrays, |[a, b, t]| a + (b - a) * t)
    })
}

/// a, b and x f64 → (x - a) / (b - a).
#[pyfunction]
pub fn unlerp(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    x: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    run(py, [a, b, x], |arrays, _| {
        float_column(arrays, |[a, b, x]| (x - a) / (b - a))
    })
}

/// x and size f64 → the multiple of size that is nearest to x, the greater one halfway between two.
#[pyfunction]
pub fn bin_center(py: Python<'_>, x: &Bound<'_, PyAny>, size: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    run(py, [x, size], |arrays, _| {
        float_column(arrays, |[x, size]| ((x + size / 2.0) / size).floor() * size)
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(rgba, module)?)?;
    module.add_function(wrap_pyfunction!(lerp_color, module)?)?;
    module.add_function(wrap_pyfunction!(color_scale, module)?)?;
    module.add_function(wrap_pyfunction!(lerp, module)?)?;
    module.add_function(wrap_pyfunction!(unlerp, module)?)?;
    module.add_function(wrap_pyfunction!(bin_center, module)?)
}
