//! Rows of Arrow batches as messages of the PostgreSQL protocol: `DataRow` in text or binary form per column, or COPY's.
//! It must never write a value that is not the column's own: what it can't write is refused before the first row.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, ListArray, PrimitiveArray, StringArray,
};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrow_py::{rows_of, value_error};
use crate::postgres_values::{
    date, decimal_binary, decimal_text, era, float, hexadecimal, integer, interval, moment, time_of_day, DAY,
};

/// Days and microseconds from the epoch of Unix to that of PostgreSQL, 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS * DAY;

/// One message holds at most this: lengths are signed 32-bit numbers.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// How a column is written.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    Binary,
    /// Binary form of a text column that is `jsonb`: a version byte, then the text.
    BinaryJsonb,
}

impl Form {
    fn new(code: u8) -> Result<Self, String> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            2 => Ok(Self::BinaryJsonb),
            other => Err(format!("form {other} is not known")),
        }
    }
}

enum Values {
    Bool(BooleanArray),
    Int16(PrimitiveArray<Int16Type>),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    Decimal(Decimal128Array, u32),
    Text(StringArray),
    Bytes(BinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Nanoseconds(PrimitiveArray<TimestampNanosecondType>, bool),
    Microseconds(PrimitiveArray<TimestampMicrosecondType>, bool),
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    List(ListArray, Box<Values>, u32),
}

impl Values {
    fn new(array: &ArrayRef, element_oid: u32) -> Result<Self, String> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int16 => Self::Int16(array.as_primitive().clone()),
            DataType::Int32 => Self::Int32(array.as_primitive().clone()),
            DataType::Int64 => Self::Int64(array.as_primitive().clone()),
            DataType::Float32 => Self::Float32(array.as_primitive().clone()),
            DataType::Float64 => Self::Float64(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => {
                let scale = u32::try_from(*scale).map_err(|_| "decimals of negative scale have no form".to_string())?;
                Self::Decimal(array.as_primitive::<Decimal128Type>().clone(), scale)
            }
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Binary => Self::Bytes(array.as_binary().clone()),
            DataType::Date32 => Self::Date(array.as_primitive().clone()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                Self::Nanoseconds(array.as_primitive().clone(), zone.is_some())
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Self::Microseconds(array.as_primitive().clone(), zone.is_some())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Self::Interval(array.as_primitive().clone()),
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let items = Self::new(list.values(), 0)?;
                if matches!(items, Self::List(..)) {
                    return Err("lists of lists have no form".to_string());
                }
                Self::List(list, Box::new(items), element_oid)
            }
            other => return Err(format!("columns of type {other} have no form")),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int16(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::Float32(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Nanoseconds(array, _) => array.is_null(row),
            Self::Microseconds(array, _) => array.is_null(row),
            Self::Interval(array) => array.is_null(row),
            Self::List(array, ..) => array.is_null(row),
        }
    }

    fn write_text(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Bool(array) => out.push(if array.value(row) { b't' } else { b'f' }),
            Self::Int16(array) => integer(array.value(row).into(), out),
            Self::Int32(array) => integer(array.value(row).into(), out),
            Self::Int64(array) => integer(array.value(row), out),
            Self::Float32(array) => {
                let value = array.value(row);
                float(value.into(), value.to_string(), || format!("{value:e}"), out);
            }
            Self::Float64(array) => {
                let value = array.value(row);
                if value.fract() == 0.0 && value.abs() < 1e15 && (value != 0.0 || value.is_sign_positive()) {
                    integer(value as i64, out);
                } else {
                    float(value, value.to_string(), || format!("{value:e}"), out);
                }
            }
            Self::Decimal(array, scale) => decimal_text(array.value(row), *scale, out),
            Self::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => hexadecimal(array.value(row), out),
            Self::Date(array) => {
                let before_christ = date(array.value(row).into(), out);
                era(before_christ, out);
            }
            Self::Time(array) => time_of_day(array.value(row), out),
            Self::Nanoseconds(array, zoned) => moment(array.value(row).div_euclid(1000), *zoned, out),
            Self::Microseconds(array, zoned) => moment(array.value(row), *zoned, out),
            Self::Interval(array) => {
                let value = array.value(row);
                interval(value.months, value.days, value.nanoseconds.div_euclid(1000), out);
            }
            Self::List(array, items, _) => {
                out.push(b'{');
                let (from, to) = (
                    array.value_offsets()[row] as usize,
                    array.value_offsets()[row + 1] as usize,
                );
                for item in from..to {
                    if item > from {
                        out.push(b',');
                    }
                    items.write_element(item, out);
                }
                out.push(b'}');
            }
        }
    }

    /// An element in the text form of an array: quoted where it could be taken for something else.
    fn write_element(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"NULL");
            return;
        }
        let start = out.len();
        self.write_text(row, out);
        let text = &out[start..];
        let plain = !text.is_empty()
            && !text.eq_ignore_ascii_case(b"null")
            && !text.iter().any(|byte| {
                matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace() || *byte == 0x0b
            });
        if !plain {
            let text = out.split_off(start);
            out.push(b'"');
            for byte in text {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
    }

    fn write_binary(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Bool(array) => out.push(array.value(row).into()),
            Self::Int16(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Int32(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Int64(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Float32(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Float64(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Decimal(array, scale) => decimal_binary(array.value(row), *scale, out),
            Self::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => out.extend_from_slice(array.value(row)),
            Self::Date(array) => {
                let days = i64::from(array.value(row)) - EPOCH_DAYS;
                let days = days.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                out.extend_from_slice(&days.to_be_bytes());
            }
            Self::Time(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Nanoseconds(array, _) => {
                out.extend_from_slice(&(array.value(row).div_euclid(1000) - EPOCH_MICROSECONDS).to_be_bytes());
            }
            Self::Microseconds(array, _) => {
                out.extend_from_slice(&array.value(row).saturating_sub(EPOCH_MICROSECONDS).to_be_bytes());
            }
            Self::Interval(array) => {
                let value = array.value(row);
                out.extend_from_slice(&value.nanoseconds.div_euclid(1000).to_be_bytes());
                out.extend_from_slice(&value.days.to_be_bytes());
                out.extend_from_slice(&value.months.to_be_bytes());
            }
            Self::List(array, items, oid) => {
                let (from, to) = (
                    array.value_offsets()[row] as usize,
                    array.value_offsets()[row + 1] as usize,
                );
                let any_null = (from..to).any(|item| items.is_null(item));
                out.extend_from_slice(&i32::from(from != to).to_be_bytes());
                out.extend_from_slice(&i32::from(any_null).to_be_bytes());
                out.extend_from_slice(&oid.to_be_bytes());
                if from != to {
                    out.extend_from_slice(&((to - from) as i32).to_be_bytes());
                    out.extend_from_slice(&1i32.to_be_bytes());
                }
                for item in from..to {
                    items.write_field(item, Form::Binary, out);
                }
            }
        }
    }

    /// A value behind its length; NULL is the length -1.
    fn write_field(&self, row: usize, form: Form, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            return;
        }
        let place = out.len();
        out.extend_from_slice(&[0; 4]);
        match form {
            Form::Text => self.write_text(row, out),
            Form::Binary => self.write_binary(row, out),
            Form::BinaryJsonb => {
                out.push(1);
                self.write_binary(row, out);
            }
        }
        set_length(out, place, place + 4);
    }
}

/// A column: its distinct values, and for a dictionary which of them each row has.
struct Column {
    values: Values,
    keys: Option<PrimitiveArray<Int32Type>>,
    form: Form,
}

impl Column {
    fn new(array: &ArrayRef, form: u8, element_oid: u32) -> Result<Self, String> {
        let form = Form::new(form)?;
        if let DataType::Dictionary(key_type, _) = array.data_type() {
            if **key_type != DataType::Int32 {
                return Err(format!("dictionaries with keys of type {key_type} have no form"));
            }
            let dictionary = array.as_dictionary::<Int32Type>();
            return Ok(Self {
                values: Values::new(dictionary.values(), element_oid)?,
                keys: Some(dictionary.keys().clone()),
                form,
            });
        }
        Ok(Self {
            values: Values::new(array, element_oid)?,
            keys: None,
            form,
        })
    }

    /// Where the row's value stands; none for NULL.
    fn place(&self, row: usize) -> Option<usize> {
        match &self.keys {
            None => (!self.values.is_null(row)).then_some(row),
            Some(keys) if keys.is_null(row) => None,
            Some(keys) => {
                let place = keys.value(row) as usize;
                (!self.values.is_null(place)).then_some(place)
            }
        }
    }
}

fn columns_of(rows: &arrow_array::StructArray, forms: &[u8], oids: &[u32]) -> Result<Vec<Column>, String> {
    if forms.len() != rows.num_columns() || oids.len() != rows.num_columns() {
        return Err(format!(
            "{} columns need as many forms and element types",
            rows.num_columns()
        ));
    }
    if rows.num_columns() > i16::MAX as usize {
        return Err(format!(
            "{} columns are more than a message can hold",
            rows.num_columns()
        ));
    }
    rows.columns()
        .iter()
        .zip(forms)
        .zip(oids)
        .map(|((array, form), oid)| Column::new(array, *form, *oid))
        .collect()
}

fn set_length(out: &mut [u8], place: usize, from: usize) {
    let length = (out.len() - from) as i32;
    out[place..place + 4].copy_from_slice(&length.to_be_bytes());
}

/// One message per row, of the kind `letter`: a number of fields, then each behind its length.
fn field_rows(letter: u8, rows: &arrow_array::StructArray, columns: &[Column]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(rows.len() * (8 + columns.len() * 16));
    let count = (columns.len() as i16).to_be_bytes();
    for row in 0..rows.len() {
        let start = out.len();
        out.extend_from_slice(&[letter, 0, 0, 0, 0]);
        out.extend_from_slice(&count);
        for column in columns {
            match column.place(row) {
                None => out.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(place) => column.values.write_field(place, column.form, &mut out),
            }
        }
        if out.len() - start > MAX_MESSAGE {
            return Err("a row is larger than a message can be".to_string());
        }
        set_length(&mut out, start + 1, start + 1);
    }
    Ok(out)
}

/// Rows as the text format of COPY: one `CopyData` message per row.
fn copy_rows(rows: &arrow_array::StructArray, columns: &[Column], style: &CopyStyle) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(rows.len() * (8 + columns.len() * 16));
    let mut field = Vec::new();
    for row in 0..rows.len() {
        let start = out.len();
        out.extend_from_slice(&[b'd', 0, 0, 0, 0]);
        for (number, column) in columns.iter().enumerate() {
            if number > 0 {
                out.push(style.delimiter);
            }
            let Some(place) = column.place(row) else {
                out.extend_from_slice(&style.null);
                continue;
            };
            field.clear();
            column.values.write_text(place, &mut field);
            style.write(&field, columns.len() == 1, &mut out);
        }
        out.push(b'\n');
        if out.len() - start > MAX_MESSAGE {
            return Err("a row is larger than a message can be".to_string());
        }
        set_length(&mut out, start + 1, start + 1);
    }
    Ok(out)
}

/// How COPY writes a field.
struct CopyStyle {
    csv: bool,
    delimiter: u8,
    null: Vec<u8>,
    quote: u8,
    escape: u8,
    force_quote: bool,
}

impl CopyStyle {
    fn write(&self, field: &[u8], is_only: bool, out: &mut Vec<u8>) {
        if self.csv {
            self.write_csv(field, is_only, out);
            return;
        }
        for byte in field {
            let letter = match byte {
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                8 => b'b',
                11 => b'v',
                12 => b'f',
                other if *other == self.delimiter => *other,
                other => {
                    out.push(*other);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
    }

    fn write_csv(&self, field: &[u8], is_only: bool, out: &mut Vec<u8>) {
        let quoted = self.force_quote
            || field == self.null
            || (is_only && field == b"\\.")
            || field
                .iter()
                .any(|byte| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r'));
        if !quoted {
            out.extend_from_slice(field);
            return;
        }
        out.push(self.quote);
        for byte in field {
            if *byte == self.quote || *byte == self.escape {
                out.push(self.escape);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}

/// The rows of a record batch as messages of the kind `letter`, each of which begins with a number of fields.
fn field_messages<'py>(
    py: Python<'py>,
    letter: u8,
    batch: &Bound<'_, PyAny>,
    forms: &[u8],
    element_oids: &[u32],
) -> PyResult<Bound<'py, PyBytes>> {
    let rows = rows_of(batch)?;
    let messages = py
        .detach(|| field_rows(letter, &rows, &columns_of(&rows, forms, element_oids)?))
        .map_err(value_error)?;
    Ok(PyBytes::new(py, &messages))
}

/// The rows of a record batch as DataRow messages.
#[pyfunction]
pub fn postgres_rows<'py>(
    py: Python<'py>,
    batch: &Bound<'_, PyAny>,
    forms: Vec<u8>,
    element_oids: Vec<u32>,
) -> PyResult<Bound<'py, PyBytes>> {
    field_messages(py, b'D', batch, &forms, &element_oids)
}

/// The rows of a record batch as CopyData messages of COPY's binary format, which lays out a row as a DataRow does.
#[pyfunction]
pub fn postgres_copy_binary_rows<'py>(
    py: Python<'py>,
    batch: &Bound<'_, PyAny>,
    forms: Vec<u8>,
    element_oids: Vec<u32>,
) -> PyResult<Bound<'py, PyBytes>> {
    field_messages(py, b'd', batch, &forms, &element_oids)
}

/// What `postgres_copy_rows` is told of a style: csv, delimiter, null, quote, escape, force_quote.
type StyleParts = (bool, u8, Vec<u8>, u8, u8, bool);

/// The rows of a record batch as CopyData messages of COPY's text or CSV format.
#[pyfunction]
pub fn postgres_copy_rows<'py>(
    py: Python<'py>,
    batch: &Bound<'_, PyAny>,
    style: StyleParts,
) -> PyResult<Bound<'py, PyBytes>> {
    let rows = rows_of(batch)?;
    let (csv, delimiter, null, quote, escape, force_quote) = style;
    let style = CopyStyle {
        csv,
        delimiter,
        null,
        quote,
        escape,
        force_quote,
    };
    let messages = py
        .detach(|| {
            let count = rows.num_columns();
            copy_rows(&rows, &columns_of(&rows, &vec![0; count], &vec![0; count])?, &style)
        })
        .map_err(value_error)?;
    Ok(PyBytes::new(py, &messages))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(postgres_rows, module)?)?;
    module.add_function(wrap_pyfunction!(postgres_copy_binary_rows, module)?)?;
    module.add_function(wrap_pyfunction!(postgres_copy_rows, module)?)
}
