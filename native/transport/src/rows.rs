//! Bodies of Arrow's IPC messages, put together out of a batch's columns where they lie: the C data interface tells where
//! that is. Of plain columns only (a value or a text per row); what is nested goes through Arrow's own writer.

use std::ffi::c_void;
use std::ptr;
use std::slice;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Buffers of a body begin at multiples of this, as Arrow's own writer has it.
const ALIGNMENT: usize = 8;
const OFFSET: usize = size_of::<i32>();

/// `struct ArrowArray` of Arrow's C data interface.
#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *const *const u8,
    children: *const *const ArrowArray,
    dictionary: *const ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

/// How the values of a column lie.
#[derive(Clone, Copy)]
pub enum Column {
    Null,
    /// So many bits each.
    Fixed(usize),
    /// Offsets of 32 bits, and what lies between two of them.
    Text,
}

impl Column {
    /// Of these, IPC has none where all is null.
    pub fn buffers(self) -> usize {
        match self {
            Column::Null => 0,
            Column::Fixed(_) => 2,
            Column::Text => 3,
        }
    }
}

/// A piece of a column or of what had to be made.
struct Span(*const u8, usize);

/// The rows of a batch as the body of a message. Dropped where no lock is held: the end of a batch may run anything.
pub struct Rows {
    array: Box<ArrowArray>,
    pub count: usize,
    /// Rows and nulls of each column.
    pub nodes: Vec<(usize, usize)>,
    spans: Vec<Span>,
    made: Vec<Vec<u8>>,
}

// SAFETY: whoever has the array may read and release it on any thread, says the interface; the spans point into it and
// into `made`, and nobody changes either
unsafe impl Send for Rows {}
// SAFETY: as above
unsafe impl Sync for Rows {}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(release) = self.array.release {
            // SAFETY: it is ours, and released once: whoever releases it takes this away
            unsafe { release(&mut *self.array) }
        }
    }
}

impl Rows {
    /// Takes a batch, whose columns must be such as `columns` says.
    pub fn of(batch: &Bound<'_, PyAny>, columns: &[Column]) -> PyResult<Rows> {
        let mut rows = Rows {
            array: Box::new(ArrowArray {
                length: 0,
                null_count: 0,
                offset: 0,
                n_buffers: 0,
                n_children: 0,
                buffers: ptr::null(),
                children: ptr::null(),
                dictionary: ptr::null(),
                release: None,
                private_data: ptr::null_mut(),
            }),
            count: 0,
            nodes: Vec::with_capacity(columns.len()),
            spans: Vec::with_capacity(3 * columns.len()),
            made: Vec::new(),
        };
        batch.call_method1("_export_to_c", (ptr::from_mut(&mut *rows.array).addr(),))?;
        if count(rows.array.n_children)? != columns.len() {
            return Err(malformed("columns"));
        }
        rows.count = count(rows.array.length)?;
        for (number, &column) in columns.iter().enumerate() {
            // SAFETY: there are so many, and they live as long as the array does
            let array = unsafe { &**rows.array.children.add(number) };
            rows.take(array, column)?;
        }
        Ok(rows)
    }

    /// The buffers in their order. Each is followed by `padding` of its length.
    pub fn buffers(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.spans.len()).map(|number| self.buffer(number))
    }

    pub fn buffer(&self, number: usize) -> &[u8] {
        match self.spans[number] {
            Span(_, 0) => &[],
            // SAFETY: so many bytes lie there for as long as this does, and nobody changes them
            Span(start, length) => unsafe { slice::from_raw_parts(start, length) },
        }
    }

    fn take(&mut self, array: &ArrowArray, column: Column) -> PyResult<()> {
        let (rows, first) = (count(array.length)?, count(array.offset)?);
        let nulls = count(array.null_count)?;
        self.nodes.push((rows, nulls));
        if count(array.n_buffers)? != column.buffers() {
            return Err(malformed("buffers"));
        }
        // SAFETY: there are so many
        let buffer = |number| unsafe { *array.buffers.add(number) };
        if column.buffers() > 0 {
            self.bits(buffer(0), first, if nulls > 0 { rows } else { 0 })?;
        }
        match column {
            Column::Null => Ok(()),
            Column::Fixed(1) => self.bits(buffer(1), first, rows),
            Column::Fixed(bits) => self.lies(buffer(1), first * bits / 8, rows * bits / 8),
            Column::Text => self.texts(buffer(1), buffer(2), first, rows),
        }
    }

    fn lies(&mut self, start: *const u8, skipped: usize, length: usize) -> PyResult<()> {
        if start.is_null() && length > 0 {
            return Err(malformed("values"));
        }
        self.spans.push(Span(start.wrapping_add(skipped), length));
        Ok(())
    }

    fn makes(&mut self, bytes: Vec<u8>) {
        self.spans.push(Span(bytes.as_ptr(), bytes.len()));
        self.made.push(bytes);
    }

    /// A bitmap begins with a byte's first bit, and ends with zeros.
    fn bits(&mut self, start: *const u8, first: usize, rows: usize) -> PyResult<()> {
        if rows == 0 || (first.is_multiple_of(8) && rows.is_multiple_of(8)) {
            return self.lies(start, first / 8, rows / 8);
        }
        if start.is_null() {
            return Err(malformed("bits"));
        }
        let (shift, end) = (first % 8, first + rows);
        // SAFETY: the bitmap has as many bits
        let bytes = unsafe { slice::from_raw_parts(start.add(first / 8), end.div_ceil(8) - first / 8) };
        let mut made: Vec<u8> = (0..rows.div_ceil(8))
            .map(|at| {
                let next = bytes.get(at + 1).copied().unwrap_or(0);
                (u16::from_le_bytes([bytes[at], next]) >> shift) as u8
            })
            .collect();
        if let Some(last) = made.last_mut().filter(|_| !rows.is_multiple_of(8)) {
            *last &= (1 << (rows % 8)) - 1;
        }
        self.makes(made);
        Ok(())
    }

    /// Offsets begin with 0.
    fn texts(&mut self, offsets: *const u8, texts: *const u8, first: usize, rows: usize) -> PyResult<()> {
        if offsets.is_null() {
            return Err(malformed("offsets"));
        }
        let (skipped, length) = (first * OFFSET, (rows + 1) * OFFSET);
        // SAFETY: a column of texts has an offset more than rows
        let bytes = unsafe { slice::from_raw_parts(offsets.add(skipped), length) };
        let (chunks, _) = bytes.as_chunks::<OFFSET>();
        let (begin, end) = (i32::from_le_bytes(chunks[0]), i32::from_le_bytes(chunks[rows]));
        if begin == 0 {
            self.lies(offsets, skipped, length)?;
        } else {
            let moved = chunks
                .iter()
                .map(|&offset| i32::from_le_bytes(offset).wrapping_sub(begin).to_le_bytes());
            self.makes(moved.flatten().collect());
        }
        match (usize::try_from(begin), usize::try_from(end)) {
            (Ok(begin), Ok(end)) if begin <= end => self.lies(texts, begin, end - begin),
            _ => Err(malformed("offsets")),
        }
    }
}

/// So many zeros follow a buffer of this length.
pub fn padding(length: usize) -> &'static [u8] {
    &[0; ALIGNMENT][..length.wrapping_neg() % ALIGNMENT]
}

fn count(number: i64) -> PyResult<usize> {
    usize::try_from(number).map_err(|_| malformed("counts"))
}

fn malformed(what: &str) -> PyErr {
    PyValueError::new_err(format!("a batch whose {what} aren't as its schema says"))
}
