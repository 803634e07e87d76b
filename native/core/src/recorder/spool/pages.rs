//! Reads the buffers and the control page that a process left (layouts: csrc/buffer.h, csrc/pages.h). Nothing in them is
//! trusted: sizes and places are checked against the file.

use std::fs;
use std::io::{Read, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::folder::open_file;
use super::segments::CounterMark;
use crate::message::value::word;

/// `sizeof(mm_block)`.
const BLOCK_HEAD: usize = 384;
const NAME_AT: usize = 128;
const NAME_BYTES: u64 = 256;
/// The largest that a caller makes: an event with 32 values and as many properties of 4 MiB each, and room to spare.
const MOST_BUFFER_BYTES: u64 = 1 << 30;
const CONTROL_MAGIC: u64 = 0x31_4c52_5443_4d4d;
const CONTROL_BYTES: usize = 4096;
const SUM_BYTES: usize = 32;
/// With all the sums that a process may have.
const MOST_CONTROL_BYTES: u64 = 4 << 20;
const KIND_SLOTS: usize = 16;

/// A block of a thread's chain. Its records stay in the file until they are asked for: all buffers together may be large.
pub struct Buffer {
    pub serial: u64,
    pub sequence: u64,
    pub native_id: u64,
    pub name: String,
    /// Where records begin that were not handed on.
    begin: u64,
    pub end: u64,
    path: PathBuf,
}

impl Buffer {
    /// The records from an offset on, counted from the block's head.
    pub fn records(&self, from: u64) -> Result<Vec<u8>> {
        let from = from.max(self.begin).min(self.end);
        let mut records = vec![0; (self.end - from) as usize];
        open_file(&self.path)?.read_exact_at(&mut records, from)?;
        Ok(records)
    }
}

#[derive(Default)]
pub struct Control {
    pub clock: Option<(u64, u64)>,
    pub dropped: Vec<u64>,
    pub sums: Vec<CounterMark>,
}

/// What was found in a folder of pages.
#[derive(Default)]
pub struct Pages {
    /// By thread, then by place in its chain.
    pub buffers: Vec<Buffer>,
    pub control: Control,
    /// Files that can't be what they should be.
    pub damaged: u64,
}

fn begin_of(path: &Path, most: u64) -> Result<(Vec<u8>, u64)> {
    let file = open_file(path)?;
    let bytes = file.metadata()?.len();
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok((content, bytes))
}

/// None: a free block. Err: not a block.
fn buffer_in(path: &Path, layout: u64) -> std::result::Result<Option<Buffer>, ()> {
    let (head, file_bytes) = begin_of(path, BLOCK_HEAD as u64).map_err(drop)?;
    if head.len() < BLOCK_HEAD {
        return Err(());
    }
    let at = |index| word(&head, index);
    let (cursor, bytes, serial, sequence) = (at(0), at(6), at(8), at(9));
    let (address, committed, native_id) = (at(10), at(11), at(12));
    if serial == 0 {
        return Ok(None); // also a file that was just made
    }
    let end = cursor.wrapping_sub(address);
    let begin = committed.max(BLOCK_HEAD as u64);
    if at(13) != layout || bytes != file_bytes || bytes > MOST_BUFFER_BYTES || end > bytes || begin > end {
        return Err(());
    }
    let name_bytes = at(15).min(NAME_BYTES) as usize;
    let name = String::from_utf8_lossy(&head[NAME_AT..NAME_AT + name_bytes]).into_owned();
    Ok(Some(Buffer {
        serial,
        sequence,
        native_id,
        name,
        begin,
        end,
        path: path.to_owned(),
    }))
}

fn control_in(content: &[u8]) -> Option<Control> {
    if content.len() < CONTROL_BYTES || word(content, 0) != CONTROL_MAGIC {
        return None;
    }
    let count = (word(content, 1) as usize).min((content.len() - CONTROL_BYTES) / SUM_BYTES);
    let turn = word(content, 2);
    let pair = 3 + 2 * (turn & 1) as usize;
    let sums = (0..count)
        .map(|index| (CONTROL_BYTES + index * SUM_BYTES) / 8)
        .map(|at| CounterMark {
            integers: word(content, at) as i64,
            floats: f64::from_bits(word(content, at + 1)),
            descriptor: word(content, at + 2),
        })
        .collect();
    Some(Control {
        clock: (turn > 0).then(|| (word(content, pair), word(content, pair + 1))),
        dropped: (0..KIND_SLOTS).map(|kind| word(content, 7 + kind)).collect(),
        sums,
    })
}

/// Reads all pages in a folder that were laid out by a core with that `layout` of records.
pub fn read(folder: &Path, layout: u64) -> Pages {
    let mut pages = Pages::default();
    let Ok(entries) = fs::read_dir(folder) else {
        return pages;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name == "control" {
            let content = begin_of(&entry.path(), MOST_CONTROL_BYTES).ok();
            match content.and_then(|(content, _)| control_in(&content)) {
                Some(control) => pages.control = control,
                None => pages.damaged += 1,
            }
        } else if name.starts_with("buffer-") {
            match buffer_in(&entry.path(), layout) {
                Ok(buffer) => pages.buffers.extend(buffer),
                Err(()) => pages.damaged += 1,
            }
        }
    }
    pages.buffers.sort_by_key(|buffer| (buffer.serial, buffer.sequence));
    pages
}

/// Whether there are any.
pub fn are_in(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("buffer-"))
    })
}

/// Removes the files of pages from a folder that holds others too.
pub fn remove_from(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name == "control" || name.starts_with("buffer-"))
        {
            let _left = fs::remove_file(entry.path());
        }
    }
}
