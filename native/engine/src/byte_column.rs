//! A column of texts or byte strings whatever its Arrow layout, seen as slots: the distinct values of a dictionary,
//! or the rows of a plain column. Kernels work once per slot; they must never decode a dictionary into rows.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use micromegas_core::codec::id_hash::IdHasher;

/// See the module's description.
pub struct ByteColumn {
    values: ArrayRef,
    /// The slot of each row, for a dictionary; a plain column's slots are its rows.
    keys: Option<Vec<usize>>,
    nulls: Option<NullBuffer>,
    rows: usize,
}

impl ByteColumn {
    /// Takes utf8 and binary columns of any offset width, views too, plain or in a dictionary. `what` names the
    /// argument in the error for other types.
    pub fn new(array: &ArrayRef, what: &str) -> Result<Self, String> {
        let rows = array.len();
        match array.data_type() {
            DataType::Null => Ok(Self {
                values: array.clone(),
                keys: None,
                nulls: Some(NullBuffer::new_null(rows)),
                rows,
            }),
            DataType::Dictionary(_, value_type) if is_bytes(value_type) => {
                let dictionary = array.as_any_dictionary();
                let values = dictionary.values().clone();
                let nulls = dictionary.keys().nulls().cloned();
                // normalized_keys refuses an empty dictionary, which can hold NULLs only
                let keys = if values.is_empty() {
                    vec![0; rows]
                } else {
                    dictionary.normalized_keys()
                };
                Ok(Self {
                    values,
                    keys: Some(keys),
                    nulls,
                    rows,
                })
            }
            plain if is_bytes(plain) => Ok(Self {
                keys: first_of_equal_views(array),
                values: array.clone(),
                nulls: array.nulls().cloned(),
                rows,
            }),
            other => Err(format!("{what}: type {other} is neither text nor binary")),
        }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.values.len()
    }

    /// The slot of a row, None for NULL.
    pub fn slot(&self, row: usize) -> Option<usize> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        let slot = self.keys.as_ref().map_or(row, |keys| keys[row]);
        // a value of a dictionary can be NULL itself
        self.values.is_valid(slot).then_some(slot)
    }

    /// The bytes of a slot that `slot` gave.
    pub fn bytes(&self, slot: usize) -> &[u8] {
        match self.values.data_type() {
            DataType::Utf8 => self.values.as_string::<i32>().value(slot).as_bytes(),
            DataType::LargeUtf8 => self.values.as_string::<i64>().value(slot).as_bytes(),
            DataType::Utf8View => self.values.as_string_view().value(slot).as_bytes(),
            DataType::Binary => self.values.as_binary::<i32>().value(slot),
            DataType::LargeBinary => self.values.as_binary::<i64>().value(slot),
            DataType::BinaryView => self.values.as_binary_view().value(slot),
            _ => &[],
        }
    }

    /// The text of a slot that `slot` gave.
    pub fn text(&self, slot: usize) -> Result<&str, String> {
        std::str::from_utf8(self.bytes(slot)).map_err(|error| format!("text is not UTF-8: {error}"))
    }

    /// Applies `function` once to each slot that a row uses, and gives its results in the order of rows.
    pub fn map<T: Copy>(
        &self,
        mut function: impl FnMut(&[u8]) -> Result<Option<T>, String>,
    ) -> Result<Vec<Option<T>>, String> {
        // outer None: not computed yet, as a batch often uses few of the values of its dictionary
        let mut results: Vec<Option<Option<T>>> = vec![None; self.slots()];
        let mut out = Vec::with_capacity(self.rows);
        for row in 0..self.rows {
            let Some(slot) = self.slot(row) else {
                out.push(None);
                continue;
            };
            let result = match results[slot] {
                Some(result) => result,
                None => {
                    *results[slot].insert(function(self.bytes(slot)).map_err(|error| format!("row {row}: {error}"))?)
                }
            };
            out.push(result);
        }
        Ok(out)
    }
}

/// For a column of views: the first row that has the same view, for each row. A dictionary that was cast to views is
/// one again by this, without a look at its values.
fn first_of_equal_views(array: &ArrayRef) -> Option<Vec<usize>> {
    let views = match array.data_type() {
        DataType::Utf8View => array.as_string_view().views(),
        DataType::BinaryView => array.as_binary_view().views(),
        _ => return None,
    };
    let mut first: HashMap<(u64, u64), usize, IdHasher> = HashMap::with_hasher(IdHasher::default());
    let mut keys: Vec<usize> = Vec::with_capacity(views.len());
    let mut last = None;
    for (row, view) in views.iter().enumerate() {
        // a view under a NULL may look like that of a value
        let key = match last {
            _ if array.is_null(row) => row,
            Some((same, key)) if same == view => key,
            _ => {
                let key = *first.entry(((*view >> 64) as u64, *view as u64)).or_insert(row);
                last = Some((view, key));
                key
            }
        };
        keys.push(key);
    }
    Some(keys)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    )
}
