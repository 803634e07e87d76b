//! Histograms of fixed-width bins (lakehouse §4.2): made from lists of values, summed, and read for quantile,
//! variance, count and sum. Bounds and bin counts come from SQL and must be checked before memory is taken for them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, Float64Array, ListArray, StructArray, UInt64Array};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields};

/// Bins of all histograms of one result column together: half a gigabyte.
const MAX_BINS: usize = 1 << 26;

fn bin_field() -> Arc<Field> {
    Arc::new(Field::new("bin", DataType::UInt64, false))
}

fn histogram_fields() -> Fields {
    let numbers = ["start", "end", "min", "max", "sum", "sum_sq"];
    let mut fields: Vec<Field> = numbers.map(|name| Field::new(name, DataType::Float64, false)).to_vec();
    fields.push(Field::new("count", DataType::UInt64, false));
    fields.push(Field::new("bins", DataType::List(bin_field()), false));
    fields.into()
}

/// Bins of equal width over [start, end]; values outside lie in the edge bins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    start: f64,
    end: f64,
    bins: usize,
}

impl Bounds {
    /// Checks the bounds; the error names what is wrong with them.
    pub fn new(start: f64, end: f64, bins: i64) -> Result<Self, String> {
        if !start.is_finite() || !end.is_finite() {
            return Err(format!("histogram bounds {start:?} and {end:?} are not both finite"));
        }
        if start > end {
            return Err(format!("histogram start {start:?} is above its end {end:?}"));
        }
        if bins < 1 || bins as usize > MAX_BINS {
            return Err(format!("histogram of {bins} bins, it takes 1 to {MAX_BINS}"));
        }
        Ok(Self {
            start,
            end,
            bins: bins as usize,
        })
    }

    fn width(&self) -> f64 {
        (self.end - self.start) / self.bins as f64
    }

    /// The middle of a bin; bins of a range without extent are taken for 1 wide.
    pub fn center(&self, bin: usize) -> f64 {
        let width = if self.end == self.start { 1.0 } else { self.width() };
        self.start + (bin as f64 + 0.5) * width
    }

    /// A NaN, or a width of zero below or at the start, gives bin 0: a cast from float saturates.
    fn bin_of(&self, value: f64, width: f64) -> usize {
        let index = ((value - self.start) / width).floor();
        (index as usize).min(self.bins - 1)
    }
}

/// The columns of histograms under construction.
#[derive(Default)]
pub struct Builder {
    starts: Vec<f64>,
    ends: Vec<f64>,
    mins: Vec<f64>,
    maxs: Vec<f64>,
    sums: Vec<f64>,
    sums_sq: Vec<f64>,
    counts: Vec<u64>,
    bin_ends: Vec<i32>,
    bins: Vec<u64>,
    valid: Vec<bool>,
}

impl Builder {
    /// Appends a NULL row.
    pub fn push_null(&mut self) {
        let (bounds, extremes) = ([&mut self.starts, &mut self.ends], [&mut self.mins, &mut self.maxs]);
        let sums = [&mut self.sums, &mut self.sums_sq];
        bounds
            .into_iter()
            .chain(extremes)
            .chain(sums)
            .for_each(|column| column.push(0.0));
        self.counts.push(0);
        self.bin_ends.push(self.bins.len() as i32);
        self.valid.push(false);
    }

    /// Starts an empty histogram.
    pub fn open(&mut self, bounds: Bounds) -> Result<Open<'_>, String> {
        let first_bin = self.bins.len();
        let end = first_bin + bounds.bins;
        if end > MAX_BINS {
            return Err(format!(
                "histograms of together {end} bins, at most {MAX_BINS} fit a batch"
            ));
        }
        self.bins.resize(end, 0);
        Ok(Open {
            bounds,
            min: f64::MAX,
            max: f64::MIN,
            sum: 0.0,
            sum_sq: 0.0,
            count: 0,
            first_bin,
            builder: self,
        })
    }

    /// The column of all rows appended.
    pub fn finish(self) -> Result<ArrayRef, String> {
        let offsets: Vec<i32> = std::iter::once(0).chain(self.bin_ends).collect();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let bins = ListArray::try_new(bin_field(), offsets, Arc::new(UInt64Array::from(self.bins)), None)
            .map_err(|error| error.to_string())?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(self.starts)),
            Arc::new(Float64Array::from(self.ends)),
            Arc::new(Float64Array::from(self.mins)),
            Arc::new(Float64Array::from(self.maxs)),
            Arc::new(Float64Array::from(self.sums)),
            Arc::new(Float64Array::from(self.sums_sq)),
            Arc::new(UInt64Array::from(self.counts)),
            Arc::new(bins),
        ];
        let nulls = self.valid.contains(&false).then(|| NullBuffer::from(self.valid));
        let array = StructArray::try_new(histogram_fields(), columns, nulls).map_err(|error| error.to_string())?;
        Ok(Arc::new(array))
    }
}

/// A histogram that is being filled, at the end of its builder's columns.
pub struct Open<'a> {
    bounds: Bounds,
    min: f64,
    max: f64,
    sum: f64,
    sum_sq: f64,
    count: u64,
    first_bin: usize,
    builder: &'a mut Builder,
}

impl Open<'_> {
    /// Counts every value that is not NULL.
    pub fn add_values(&mut self, values: &Float64Array) {
        let (bounds, width) = (self.bounds, self.bounds.width());
        let bins = &mut self.builder.bins[self.first_bin..];
        let mut add = |value: f64| {
            bins[bounds.bin_of(value, width)] += 1;
            // comparisons leave a NaN out of min and max
            if value < self.min {
                self.min = value;
            }
            if value > self.max {
                self.max = value;
            }
            self.sum += value;
            self.sum_sq += value * value;
            self.count += 1;
        };
        if values.null_count() == 0 {
            values.values().iter().copied().for_each(&mut add);
        } else {
            values.iter().flatten().for_each(&mut add);
        }
    }

    /// Adds a histogram that is not NULL; an error if its bounds differ.
    pub fn add_histogram(&mut self, histograms: &Histograms<'_>, row: usize) -> Result<(), String> {
        let other = histograms.bounds(row)?;
        if other != self.bounds {
            return Err(format!(
                "histograms of {:?} and {:?} can't be summed",
                self.bounds, other
            ));
        }
        let bins = &mut self.builder.bins[self.first_bin..];
        for (bin, more) in bins.iter_mut().zip(histograms.bins(row)) {
            *bin = bin.saturating_add(*more);
        }
        self.min = self.min.min(histograms.min.value(row));
        self.max = self.max.max(histograms.max.value(row));
        self.sum += histograms.sum.value(row);
        self.sum_sq += histograms.sum_sq.value(row);
        self.count = self.count.saturating_add(histograms.count.value(row));
        Ok(())
    }

    /// Appends the histogram as a row; without this it is lost.
    pub fn close(self) {
        let builder = self.builder;
        builder.starts.push(self.bounds.start);
        builder.ends.push(self.bounds.end);
        builder.mins.push(self.min);
        builder.maxs.push(self.max);
        builder.sums.push(self.sum);
        builder.sums_sq.push(self.sum_sq);
        builder.counts.push(self.count);
        builder.bin_ends.push(builder.bins.len() as i32);
        builder.valid.push(true);
    }
}

/// A column of histograms, typed.
pub struct Histograms<'a> {
    pub array: &'a StructArray,
    start: &'a Float64Array,
    end: &'a Float64Array,
    min: &'a Float64Array,
    max: &'a Float64Array,
    pub sum: &'a Float64Array,
    sum_sq: &'a Float64Array,
    pub count: &'a UInt64Array,
    bins: &'a ListArray,
    bin_values: &'a UInt64Array,
}

impl<'a> Histograms<'a> {
    /// An error if the column is none of histograms.
    pub fn new(array: &'a dyn Array) -> Result<Self, String> {
        let shape = || format!("{} is no histogram", array.data_type());
        let columns = array.as_struct_opt().ok_or_else(shape)?;
        let number = |name: &str| {
            columns
                .column_by_name(name)
                .and_then(|column| column.as_primitive_opt::<Float64Type>())
                .ok_or_else(shape)
        };
        let bins = columns
            .column_by_name("bins")
            .and_then(|column| column.as_list_opt::<i32>())
            .ok_or_else(shape)?;
        Ok(Self {
            array: columns,
            start: number("start")?,
            end: number("end")?,
            min: number("min")?,
            max: number("max")?,
            sum: number("sum")?,
            sum_sq: number("sum_sq")?,
            count: columns
                .column_by_name("count")
                .and_then(|column| column.as_primitive_opt::<UInt64Type>())
                .ok_or_else(shape)?,
            bins,
            bin_values: bins.values().as_primitive_opt::<UInt64Type>().ok_or_else(shape)?,
        })
    }

    /// The counts of a row that is not NULL.
    pub fn bins(&self, row: usize) -> &[u64] {
        let offsets = self.bins.value_offsets();
        &self.bin_values.values()[offsets[row] as usize..offsets[row + 1] as usize]
    }

    /// The bounds of a row; checked, as a histogram can be built in SQL too.
    pub fn bounds(&self, row: usize) -> Result<Bounds, String> {
        Bounds::new(self.start.value(row), self.end.value(row), self.bins(row).len() as i64)
    }

    /// An estimate of the value below which the share `ratio` of the values lies.
    pub fn quantile(&self, row: usize, ratio: f64) -> f64 {
        let (start, end, bins) = (self.start.value(row), self.end.value(row), self.bins(row));
        let width = (end - start) / bins.len() as f64;
        let target = self.count.value(row) as f64 * ratio;
        let mut below = 0_u64;
        for (index, bin) in bins.iter().enumerate() {
            let up_to = below.saturating_add(*bin);
            if *bin > 0 && up_to as f64 >= target {
                let fraction = (target - below as f64) / *bin as f64;
                let (left, right) = (start + index as f64 * width, start + (index + 1) as f64 * width);
                return (1.0 - fraction) * left + fraction * right;
            }
            below = up_to;
        }
        end
    }

    /// Of the sample, from the sums: NaN for fewer than two values.
    pub fn variance(&self, row: usize) -> f64 {
        let count = self.count.value(row) as f64;
        let mean = self.sum.value(row) / count;
        (self.sum_sq.value(row) / count - mean * mean) * count / (count - 1.0)
    }

    /// A column of one number per histogram, NULL for NULL.
    pub fn map(&self, function: impl Fn(usize) -> Option<f64>) -> ArrayRef {
        let rows = 0..self.array.len();
        let results = rows.map(|row| self.array.is_valid(row).then(|| function(row)).flatten());
        Arc::new(results.collect::<Float64Array>())
    }
}
