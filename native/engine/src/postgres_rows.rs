//! Rows of Arrow batches as `DataRow` messages of the PostgreSQL protocol, in text or binary form per column.
//! It must never write a value that is not the column's own: what it can't write is refused before the first row.

use std::fmt::Write as _;

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

/// Days and microseconds from the epoch of Unix to that of PostgreSQL, 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS * DAY_MICROSECONDS;
const DAY_MICROSECONDS: i64 = 86_400_000_000;

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

fn data_rows(rows: &arrow_array::StructArray, columns: &[Column]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(rows.len() * (8 + columns.len() * 16));
    let count = (columns.len() as i16).to_be_bytes();
    for row in 0..rows.len() {
        let start = out.len();
        out.extend_from_slice(&[b'D', 0, 0, 0, 0]);
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

fn integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut place = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        place -= 1;
        digits[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[place..]);
}

/// The shortest digits that give the value back, with an exponent where it is very large or small.
fn float(value: f64, plain: String, exponential: impl Fn() -> String, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if value != 0.0 && !(1e-4..1e15).contains(&value.abs()) {
        let text = exponential();
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        out.extend_from_slice(digits.as_bytes());
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        write_text(out, format_args!("e{sign}{exponent:0>2}"));
    } else {
        out.extend_from_slice(plain.as_bytes());
    }
}

fn write_text(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    struct Into<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Into<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // writing into memory can't fail
    let _ = Into(out).write_fmt(arguments);
}

fn decimal_text(value: i128, scale: u32, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    let scale = scale as usize;
    if scale == 0 {
        out.extend_from_slice(digits.as_bytes());
        return;
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    write_text(out, format_args!("{whole}.{fraction}"));
}

/// `numeric`: digits of base 10 000, of which the first has a weight, and how many decimals are shown.
fn decimal_binary(value: i128, scale: u32, out: &mut Vec<u8>) {
    let groups_behind = scale.div_ceil(4);
    // so that the point stands between two groups
    let padding = "0".repeat((groups_behind * 4 - scale) as usize);
    let digits = value.unsigned_abs().to_string() + &padding;
    let width = digits.len().div_ceil(4) * 4;
    let digits = format!("{digits:0>width$}");
    let mut groups: Vec<i16> = digits
        .as_bytes()
        .chunks(4)
        .map(|group| group.iter().fold(0i16, |sum, digit| sum * 10 + i16::from(digit - b'0')))
        .collect();
    let mut weight = groups.len() as i32 - groups_behind as i32 - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= leading as i32;
    if groups.is_empty() {
        weight = 0;
    }
    out.extend_from_slice(&(groups.len() as i16).to_be_bytes());
    out.extend_from_slice(&(weight as i16).to_be_bytes());
    out.extend_from_slice(&(if value < 0 { 0x4000i16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&(scale as i16).to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

fn hexadecimal(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn two_digits(value: i64, out: &mut Vec<u8>) {
    out.push(b'0' + (value / 10 % 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// Writes the date of a day since 1970-01-01; whether it lies before Christ is for the end of the text.
///
/// Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
fn date(days: i64, out: &mut Vec<u8>) -> bool {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let shown = if year > 0 { year } else { 1 - year };
    if shown < 1000 {
        two_digits(shown / 100, out);
        two_digits(shown % 100, out);
    } else {
        integer(shown, out);
    }
    out.push(b'-');
    two_digits(month, out);
    out.push(b'-');
    two_digits(day, out);
    year <= 0
}

fn era(before_christ: bool, out: &mut Vec<u8>) {
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

fn fraction(microseconds: i64, out: &mut Vec<u8>) {
    if microseconds != 0 {
        out.push(b'.');
        let mut rest = microseconds;
        let mut unit = 100_000;
        while rest != 0 {
            out.push(b'0' + (rest / unit) as u8);
            rest %= unit;
            unit /= 10;
        }
    }
}

fn time_of_day(microseconds: i64, out: &mut Vec<u8>) {
    let seconds = microseconds / 1_000_000;
    two_digits(seconds / 3600, out);
    out.push(b':');
    two_digits(seconds / 60 % 60, out);
    out.push(b':');
    two_digits(seconds % 60, out);
    fraction(microseconds % 1_000_000, out);
}

fn moment(microseconds: i64, zoned: bool, out: &mut Vec<u8>) {
    let before_christ = date(microseconds.div_euclid(DAY_MICROSECONDS), out);
    out.push(b' ');
    time_of_day(microseconds.rem_euclid(DAY_MICROSECONDS), out);
    if zoned {
        out.extend_from_slice(b"+00");
    }
    era(before_christ, out);
}

fn interval(months: i32, days: i32, microseconds: i64, out: &mut Vec<u8>) {
    let start = out.len();
    let mut is_negative = false;
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number != 0 {
            if out.len() > start {
                out.push(b' ');
            }
            let plus = if is_negative && number > 0 { "+" } else { "" };
            let plural = if number == 1 { "" } else { "s" };
            write_text(out, format_args!("{plus}{number} {unit}{plural}"));
            is_negative = number < 0;
        }
    }
    if microseconds != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if microseconds < 0 {
            out.push(b'-');
        } else if is_negative {
            out.push(b'+');
        }
        let size = microseconds.unsigned_abs();
        let hours = size / 3_600_000_000;
        if hours < 10 {
            out.push(b'0');
        }
        integer(hours as i64, out);
        let rest = (size % 3_600_000_000) as i64;
        out.push(b':');
        two_digits(rest / 60_000_000, out);
        out.push(b':');
        two_digits(rest / 1_000_000 % 60, out);
        fraction(rest % 1_000_000, out);
    }
}

/// The rows of a record batch as DataRow messages.
#[pyfunction]
pub fn postgres_rows<'py>(
    py: Python<'py>,
    batch: &Bound<'_, PyAny>,
    forms: Vec<u8>,
    element_oids: Vec<u32>,
) -> PyResult<Bound<'py, PyBytes>> {
    let rows = rows_of(batch)?;
    let messages = py
        .detach(|| data_rows(&rows, &columns_of(&rows, &forms, &element_oids)?))
        .map_err(value_error)?;
    Ok(PyBytes::new(py, &messages))
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
    module.add_function(wrap_pyfunction!(postgres_copy_rows, module)?)
}
