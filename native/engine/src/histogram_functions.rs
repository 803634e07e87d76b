//! The kernels behind the SQL functions on histograms: columns in, a column out.
//! They must check the types of all columns, as a caller from Python may pass any.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, UInt64Array};
use arrow_buffer::NullBuffer;
use pyo3::prelude::*;

use crate::arrow_py::{import_array, value_error, ArrowArray};
use crate::histogram::{Bounds, Builder, Histograms};

fn typed<'a, T: arrow_array::ArrowPrimitiveType>(
    array: &'a ArrayRef,
    what: &str,
) -> Result<&'a arrow_array::PrimitiveArray<T>, String> {
    array
        .as_primitive_opt::<T>()
        .ok_or_else(|| format!("{what}: type {} where {} is wanted", array.data_type(), T::DATA_TYPE))
}

fn lists<'a>(array: &'a ArrayRef, what: &str) -> Result<&'a ListArray, String> {
    array
        .as_list_opt::<i32>()
        .ok_or_else(|| format!("{what}: type {} where a list is wanted", array.data_type()))
}

fn same_length(arrays: &[ArrayRef]) -> Result<usize, String> {
    let rows = arrays.first().map_or(0, |array| array.len());
    match arrays.iter().find(|array| array.len() != rows) {
        Some(other) => Err(format!("columns of {rows} and {} rows", other.len())),
        None => Ok(rows),
    }
}

fn value_or_error<T: arrow_array::ArrowPrimitiveType>(
    array: &arrow_array::PrimitiveArray<T>,
    row: usize,
    what: &str,
) -> Result<T::Native, String> {
    if array.is_null(row) {
        return Err(format!("histogram {what} is NULL"));
    }
    Ok(array.value(row))
}

/// Equal, or both NaN.
fn same(one: f64, other: f64) -> bool {
    one == other || (one.is_nan() && other.is_nan())
}

fn fill(builder: &mut Builder, bounds: Bounds, values: &ListArray, row: usize) -> Result<(), String> {
    let mut histogram = builder.open(bounds)?;
    if values.is_valid(row) {
        let list = values.value(row);
        let list = list
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(|| format!("histogram values: {} where Float64 is wanted", list.data_type()))?;
        histogram.add_values(list);
    }
    histogram.close();
    Ok(())
}

/// start f64, end f64, nb_bins i64, values list<f64> → histogram of each list. A NULL list gives an empty histogram.
/// Errors: NULL, non-finite or reversed bounds, fewer than one bin.
#[pyfunction]
pub fn histogram_of_list(
    py: Python<'_>,
    start: &Bound<'_, PyAny>,
    end: &Bound<'_, PyAny>,
    nb_bins: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    let arrays = [
        import_array(start)?,
        import_array(end)?,
        import_array(nb_bins)?,
        import_array(values)?,
    ];
    let kernel = || -> Result<ArrayRef, String> {
        let rows = same_length(&arrays)?;
        let starts: &Float64Array = typed(&arrays[0], "histogram start")?;
        let ends: &Float64Array = typed(&arrays[1], "histogram end")?;
        let bins: &Int64Array = typed::<Int64Type>(&arrays[2], "histogram nb_bins")?;
        let values = lists(&arrays[3], "histogram values")?;
        let mut builder = Builder::default();
        for row in 0..rows {
            let bounds = Bounds::new(
                value_or_error(starts, row, "start")?,
                value_or_error(ends, row, "end")?,
                value_or_error(bins, row, "nb_bins")?,
            )?;
            fill(&mut builder, bounds, values, row)?;
        }
        builder.finish()
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// min and max f64 of start over the group, the same of end, min and max i64 of nb_bins, whether any of the three was
/// NULL (NULL for an empty group), values list<f64> → histogram of each group, NULL for an empty group.
/// Errors: those of `histogram_of_list`, and bounds that are not constant over the group.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn histogram_of_group(
    py: Python<'_>,
    min_start: &Bound<'_, PyAny>,
    max_start: &Bound<'_, PyAny>,
    min_end: &Bound<'_, PyAny>,
    max_end: &Bound<'_, PyAny>,
    min_bins: &Bound<'_, PyAny>,
    max_bins: &Bound<'_, PyAny>,
    any_null: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    let objects = [
        min_start, max_start, min_end, max_end, min_bins, max_bins, any_null, values,
    ];
    let arrays = objects
        .iter()
        .map(|object| import_array(object))
        .collect::<PyResult<Vec<_>>>()?;
    let kernel = || -> Result<ArrayRef, String> {
        let rows = same_length(&arrays)?;
        let number = |index: usize| typed::<Float64Type>(&arrays[index], "histogram bound");
        let (min_start, max_start, min_end, max_end) = (number(0)?, number(1)?, number(2)?, number(3)?);
        let min_bins = typed::<Int64Type>(&arrays[4], "histogram nb_bins")?;
        let max_bins = typed::<Int64Type>(&arrays[5], "histogram nb_bins")?;
        let any_null: &BooleanArray = arrays[6].as_boolean_opt().ok_or("histogram bounds: no boolean")?;
        let values = lists(&arrays[7], "histogram values")?;
        let mut builder = Builder::default();
        for row in 0..rows {
            if any_null.is_null(row) {
                builder.push_null();
                continue;
            }
            if any_null.value(row) {
                return Err("histogram bound is NULL".to_string());
            }
            let constant = same(min_start.value(row), max_start.value(row))
                && same(min_end.value(row), max_end.value(row))
                && min_bins.value(row) == max_bins.value(row);
            if !constant {
                return Err("histogram bounds change within a group".to_string());
            }
            let bounds = Bounds::new(min_start.value(row), min_end.value(row), min_bins.value(row))?;
            fill(&mut builder, bounds, values, row)?;
        }
        builder.finish()
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// list<histogram> → their sum. NULL histograms are skipped; a list without any other gives NULL.
/// Errors: histograms of different start, end or number of bins.
#[pyfunction]
pub fn sum_of_histograms(py: Python<'_>, histograms: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(histograms)?;
    let kernel = || -> Result<ArrayRef, String> {
        let groups = lists(&array, "histograms")?;
        let histograms = Histograms::new(groups.values())?;
        let offsets = groups.value_offsets();
        let mut builder = Builder::default();
        for row in 0..groups.len() {
            let items = offsets[row] as usize..offsets[row + 1] as usize;
            let mut items = items
                .filter(|item| groups.is_valid(row) && histograms.array.is_valid(*item))
                .peekable();
            let Some(first) = items.peek() else {
                builder.push_null();
                continue;
            };
            let mut sum = builder.open(histograms.bounds(*first)?)?;
            for item in items {
                sum.add_histogram(&histograms, item)?;
            }
            sum.close();
        }
        builder.finish()
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// histogram, ratio f64 → f64, interpolated within the bin that holds the quantile; the end of the range if none does.
#[pyfunction]
pub fn quantile_from_histogram(
    py: Python<'_>,
    histogram: &Bound<'_, PyAny>,
    ratio: &Bound<'_, PyAny>,
) -> PyResult<ArrowArray> {
    let arrays = [import_array(histogram)?, import_array(ratio)?];
    let kernel = || -> Result<ArrayRef, String> {
        same_length(&arrays)?;
        let ratios = typed::<Float64Type>(&arrays[1], "ratio")?;
        let histograms = Histograms::new(&arrays[0])?;
        Ok(histograms.map(|row| {
            ratios
                .is_valid(row)
                .then(|| histograms.quantile(row, ratios.value(row)))
        }))
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// histogram → f64, the variance of the sample; NaN for fewer than two values.
#[pyfunction]
pub fn variance_from_histogram(py: Python<'_>, histogram: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(histogram)?;
    let kernel = || -> Result<ArrayRef, String> {
        let histograms = Histograms::new(&array)?;
        Ok(histograms.map(|row| Some(histograms.variance(row))))
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// histogram → f64, the sum of all values.
#[pyfunction]
pub fn sum_from_histogram(py: Python<'_>, histogram: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(histogram)?;
    let kernel = || -> Result<ArrayRef, String> {
        let histograms = Histograms::new(&array)?;
        Ok(histograms.map(|row| Some(histograms.sum.value(row))))
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

/// histogram → u64, the number of values.
#[pyfunction]
pub fn count_from_histogram(py: Python<'_>, histogram: &Bound<'_, PyAny>) -> PyResult<ArrowArray> {
    let array = import_array(histogram)?;
    let kernel = || -> Result<ArrayRef, String> {
        let histograms = Histograms::new(&array)?;
        let nulls = NullBuffer::union(histograms.array.nulls(), histograms.count.nulls());
        Ok(Arc::new(UInt64Array::new(histograms.count.values().clone(), nulls)))
    };
    py.detach(kernel).map(ArrowArray::new).map_err(value_error)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(histogram_of_list, module)?)?;
    module.add_function(wrap_pyfunction!(histogram_of_group, module)?)?;
    module.add_function(wrap_pyfunction!(sum_of_histograms, module)?)?;
    module.add_function(wrap_pyfunction!(quantile_from_histogram, module)?)?;
    module.add_function(wrap_pyfunction!(variance_from_histogram, module)?)?;
    module.add_function(wrap_pyfunction!(sum_from_histogram, module)?)?;
    module.add_function(wrap_pyfunction!(count_from_histogram, module)?)
}
