//! Dictionary-encoded columns of text or bytes: every distinct value once, rows as keys.
//! A dictionary must never hold a value twice: readers compare keys within a batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, BinaryArray, DictionaryArray, Int32Array, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

/// Gives each distinct byte string a key, in the order of first sight.
#[derive(Default)]
pub struct Interner {
    keys: HashMap<Arc<[u8]>, i32>,
    values: Vec<Arc<[u8]>>,
    value_bytes: usize,
}

impl Interner {
    pub fn new() -> Self {
        Self::default()
    }

    /// The key of `value`; the same for equal values until the interner is dropped or taken.
    pub fn intern(&mut self, value: &[u8]) -> i32 {
        if let Some(key) = self.keys.get(value) {
            return *key;
        }
        // 2^31 distinct values cannot be reached before the 2 GiB of a dictionary, which `take` checks
        let key = self.values.len() as i32;
        let shared: Arc<[u8]> = Arc::from(value);
        self.value_bytes += shared.len();
        self.values.push(shared.clone());
        self.keys.insert(shared, key);
        key
    }

    pub fn intern_str(&mut self, value: &str) -> i32 {
        self.intern(value.as_bytes())
    }

    /// The value of a key that `intern` gave since the last `take`.
    pub fn value(&self, key: i32) -> &[u8] {
        &self.values[key as usize]
    }

    /// Number of distinct values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of the distinct values.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    fn buffers(&mut self, what: &str) -> Result<(OffsetBuffer<i32>, Buffer), String> {
        if self.value_bytes > i32::MAX as usize {
            return Err(format!(
                "{what}: distinct values of {} bytes exceed 2 GiB",
                self.value_bytes
            ));
        }
        let mut bytes = Vec::with_capacity(self.value_bytes);
        let mut offsets = Vec::with_capacity(self.values.len() + 1);
        offsets.push(0_i32);
        for value in &self.values {
            bytes.extend_from_slice(value);
            offsets.push(bytes.len() as i32);
        }
        *self = Self::default();
        Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(bytes)))
    }

    /// The distinct values as a text array, leaving the interner empty. Only for an interner that was fed with text.
    pub fn take_strings(&mut self, what: &str) -> Result<StringArray, String> {
        let (offsets, bytes) = self.buffers(what)?;
        StringArray::try_new(offsets, bytes, None).map_err(|error| format!("{what}: {error}"))
    }

    /// The distinct values as a binary array, leaving the interner empty.
    pub fn take_binaries(&mut self, what: &str) -> Result<BinaryArray, String> {
        let (offsets, bytes) = self.buffers(what)?;
        BinaryArray::try_new(offsets, bytes, None).map_err(|error| format!("{what}: {error}"))
    }
}

/// A dictionary column of `keys` into `values`; a negative key is NULL.
pub fn dictionary(keys: Vec<i32>, values: ArrayRef) -> Result<ArrayRef, String> {
    let nulls = keys
        .iter()
        .any(|key| *key < 0)
        .then(|| keys.iter().map(|key| *key >= 0).collect::<NullBuffer>());
    // a key under a NULL has to lie within the dictionary too, unless that is empty
    let keys = Int32Array::new(keys.into_iter().map(|key| key.max(0)).collect::<Vec<_>>().into(), nulls);
    if values.is_empty() && keys.null_count() < keys.len() {
        return Err("dictionary keys without values".to_string());
    }
    let array = DictionaryArray::<Int32Type>::try_new(keys, values).map_err(|error| error.to_string())?;
    Ok(Arc::new(array))
}
