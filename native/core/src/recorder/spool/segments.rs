//! Segment files: batches of blocks that wait to be sent, and with each batch how far the buffers were read for it.
//!
//! A batch is one write. What it holds is bounds-checked and checksummed when it is read, for anything may have happened to
//! the file since.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::folder::{create_file, open_file, options};
use super::journal::{bytes, checksum, text, Writer};
use crate::codec::bytes::ByteReader;
use crate::codec::error::Result as WireResult;
use crate::recorder::hotpath::Position;
use crate::recorder::layouts::StreamKind;

/// A new segment is begun beyond; files of no more are used again.
const SEGMENT_BYTES: u64 = 4 << 20;
const MAGIC: u64 = 0x3148_4354_4142_4d4d; // "MMBATCH1"
const PREFIX: usize = 32;
const MOST_HEAD_BYTES: u64 = 64 << 20;
const SEALED: u64 = 1;

/// A stream as it stands after a batch. The streams of logs and measures have the serial 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamMark {
    pub serial: u64,
    pub kind: StreamKind,
    pub id: String,
    pub object_offset: u64,
    pub end_ns: u64,
    pub open: Vec<OpenMark>,
}

/// A span that has begun and not ended, from the outermost on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenMark {
    pub descriptor: u64,
    /// Of a span named at run time.
    pub name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CounterMark {
    pub descriptor: u64,
    pub integers: i64,
    pub floats: f64,
}

/// Where a session stands after a batch.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Marks {
    pub positions: Vec<Position>,
    pub streams: Vec<StreamMark>,
    pub counters: Vec<CounterMark>,
    /// Events that had found no buffer, by kind, as far as that was told.
    pub dropped: Vec<u64>,
    /// Nothing comes after it.
    pub is_sealed: bool,
}

/// A block to keep.
pub struct Kept<'a> {
    pub stream_id: &'a str,
    pub kind: StreamKind,
    pub events: u64,
    pub announcement: &'a [u8],
    pub body: &'a [u8],
}

/// A block as it is found again.
#[derive(Debug)]
pub struct Found {
    pub stream_id: String,
    pub kind: StreamKind,
    pub events: u64,
    pub stored: Stored,
}

/// Where the body of a block is.
#[derive(Clone)]
pub struct Stored {
    segments: Arc<Segments>,
    segment: u64,
    offset: u64,
    length: usize,
    checksum: u64,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} at {} of segment {}",
            self.length, self.offset, self.segment
        )
    }
}

#[derive(Default)]
struct Segment {
    bytes: u64,
    /// Blocks that are not settled.
    waiting: usize,
    /// A failed write may have left something at its end.
    is_closed: bool,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Segment>,
    next: u64,
    batches: u64,
    has_spare: bool,
}

pub struct Segments {
    folder: PathBuf,
    state: Mutex<State>,
}

fn kind_number(kind: StreamKind) -> u64 {
    match kind {
        StreamKind::Log => 0,
        StreamKind::Metrics => 1,
        StreamKind::Cpu => 2,
    }
}

fn kind_of(number: u64) -> StreamKind {
    match number {
        0 => StreamKind::Log,
        1 => StreamKind::Metrics,
        _ => StreamKind::Cpu,
    }
}

fn encode(marks: &Marks, blocks: &[Kept<'_>], number: u64) -> (Vec<u8>, Vec<(u64, usize, u64)>) {
    let mut head = Writer::default();
    head.u64(marks.positions.len() as u64);
    for position in &marks.positions {
        for word in [position.serial, position.sequence, position.offset] {
            head.u64(word);
        }
    }
    head.u64(marks.streams.len() as u64);
    for stream in &marks.streams {
        head.u64(stream.serial);
        head.u64(kind_number(stream.kind));
        head.bytes(stream.id.as_bytes());
        head.u64(stream.object_offset);
        head.u64(stream.end_ns);
        head.u64(stream.open.len() as u64);
        for span in &stream.open {
            // Addresses are multiples of 16.
            head.u64(span.descriptor | u64::from(span.name.is_some()));
            if let Some(name) = &span.name {
                head.bytes(name.as_bytes());
            }
        }
    }
    head.u64(marks.counters.len() as u64);
    for counter in &marks.counters {
        head.u64(counter.descriptor);
        head.u64(counter.integers as u64);
        head.u64(counter.floats.to_bits());
    }
    head.u64(marks.dropped.len() as u64);
    for count in &marks.dropped {
        head.u64(*count);
    }
    let mut announcements: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for block in blocks {
        announcements.insert(block.stream_id, block.announcement);
    }
    head.u64(announcements.len() as u64);
    for (stream_id, body) in announcements {
        head.bytes(stream_id.as_bytes());
        head.bytes(body);
    }
    let sums: Vec<u64> = blocks.iter().map(|block| checksum(block.body, 0)).collect();
    head.u64(blocks.len() as u64);
    for (block, sum) in blocks.iter().zip(&sums) {
        head.bytes(block.stream_id.as_bytes());
        for word in [kind_number(block.kind), block.events, block.body.len() as u64, *sum] {
            head.u64(word);
        }
    }
    let mut batch = Writer::default();
    batch.u64(MAGIC);
    batch.u64(number << 1 | if marks.is_sealed { SEALED } else { 0 });
    batch.u64(head.0.len() as u64);
    batch.u64(checksum(&head.0, number));
    batch.0.append(&mut head.0);
    let mut places = Vec::new();
    for (block, sum) in blocks.iter().zip(sums) {
        places.push((batch.0.len() as u64, block.body.len(), sum));
        batch.0.extend_from_slice(block.body);
    }
    (batch.0, places)
}

/// What a batch holds, without the bodies.
struct Head {
    marks: Marks,
    announcements: Vec<(String, Vec<u8>)>,
    /// Stream, kind, events, length and checksum of the body.
    blocks: Vec<(String, StreamKind, u64, u64, u64)>,
}

fn decode(head: &[u8], is_sealed: bool) -> WireResult<Head> {
    let reader = &mut ByteReader::new(head);
    let mut marks = Marks {
        is_sealed,
        ..Marks::default()
    };
    for _ in 0..reader.u64()? {
        marks.positions.push(Position {
            serial: reader.u64()?,
            sequence: reader.u64()?,
            offset: reader.u64()?,
        });
    }
    for _ in 0..reader.u64()? {
        let mut mark = StreamMark {
            serial: reader.u64()?,
            kind: kind_of(reader.u64()?),
            id: text(reader)?,
            object_offset: reader.u64()?,
            end_ns: reader.u64()?,
            open: Vec::new(),
        };
        for _ in 0..reader.u64()? {
            let descriptor = reader.u64()?;
            let name = if descriptor & 1 == 1 { Some(text(reader)?) } else { None };
            mark.open.push(OpenMark {
                descriptor: descriptor & !1,
                name,
            });
        }
        marks.streams.push(mark);
    }
    for _ in 0..reader.u64()? {
        marks.counters.push(CounterMark {
            descriptor: reader.u64()?,
            integers: reader.i64()?,
            floats: f64::from_bits(reader.u64()?),
        });
    }
    for _ in 0..reader.u64()? {
        marks.dropped.push(reader.u64()?);
    }
    let mut announcements = Vec::new();
    for _ in 0..reader.u64()? {
        announcements.push((text(reader)?, bytes(reader)?.to_vec()));
    }
    let mut blocks = Vec::new();
    for _ in 0..reader.u64()? {
        let stream_id = text(reader)?;
        let kind = kind_of(reader.u64()?);
        blocks.push((stream_id, kind, reader.u64()?, reader.u64()?, reader.u64()?));
    }
    Ok(Head {
        marks,
        announcements,
        blocks,
    })
}

/// The batches of a session that died.
#[derive(Default)]
pub struct Batches {
    pub marks: Marks,
    /// Stream announcements by stream id.
    pub announcements: BTreeMap<String, Vec<u8>>,
    pub blocks: Vec<Found>,
    /// Bytes at the ends of segments that are no whole batch, where one was begun or damaged.
    pub damaged_bytes: u64,
}

impl Segments {
    pub fn new(folder: &Path) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("segment-{segment}"))
    }

    /// A file that was a segment. Nobody takes what is in it for one.
    fn spare(&self) -> PathBuf {
        self.folder.join("spare")
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.lock().files.values().map(|file| file.bytes).sum()
    }

    /// Keeps blocks and what goes with them: all or, with an error, nothing. Gives the places in their order.
    pub fn append(self: &Arc<Self>, marks: &Marks, blocks: &[Kept<'_>]) -> Result<Vec<Stored>> {
        let mut state = self.lock();
        let (batch, places) = encode(marks, blocks, state.batches);
        let last = state
            .files
            .last_key_value()
            .map(|(&segment, file)| (segment, file.bytes, file));
        let open = last.filter(|(_, bytes, file)| !file.is_closed && file.waiting > 0 && *bytes < SEGMENT_BYTES);
        let (segment, start) = match open {
            Some((segment, bytes, _)) => (segment, bytes),
            None => (state.next, 0),
        };
        let path = self.path(segment);
        if open.is_some() {
            let mut file = options().append(true).open(&path)?;
            if let Err(error) = file.write_all(&batch) {
                // What was written is no whole batch; take it out again, or let nothing follow it.
                if file.set_len(start).is_err() {
                    state.files.entry(segment).or_default().is_closed = true;
                }
                return Err(error);
            }
        } else {
            state.next = segment + 1;
            self.begin(&mut state, &path, &batch)?;
        }
        state.batches += 1;
        let entry = state.files.entry(segment).or_default();
        entry.bytes = start + batch.len() as u64;
        entry.waiting += blocks.len();
        // Only the last batch's marks count: earlier segments are needed for their blocks only.
        let done: Vec<u64> = state
            .files
            .iter()
            .filter(|(&number, file)| number != segment && file.waiting == 0)
            .map(|(&number, _)| number)
            .collect();
        for number in done {
            self.retire(&mut state, number);
        }
        Ok(places
            .into_iter()
            .map(|(offset, length, checksum)| Stored {
                segments: Arc::clone(self),
                segment,
                offset: start + offset,
                length,
                checksum,
            })
            .collect())
    }

    /// A segment with its first batch, in the file of an earlier one if there is a spare: to make one and to remove one
    /// with each cut costs a file system more than what is written to it.
    fn begin(&self, state: &mut State, path: &Path, batch: &[u8]) -> Result<()> {
        if std::mem::take(&mut state.has_spare) {
            let spare = self.spare();
            let file = options().write(true).open(&spare);
            let written = file.and_then(|file| {
                file.write_all_at(batch, 0)?;
                file.set_len(batch.len() as u64)
            });
            if written.and_then(|()| fs::rename(&spare, path)).is_ok() {
                return Ok(());
            }
            let _gone_already = fs::remove_file(&spare);
        }
        create_file(path)?.write_all(batch).inspect_err(|_| {
            let _left = fs::remove_file(path);
        })
    }

    /// Removes a segment of this session, or keeps its file for another.
    fn retire(&self, state: &mut State, segment: u64) {
        let is_small = state
            .files
            .get(&segment)
            .is_some_and(|file| file.bytes <= SEGMENT_BYTES);
        if !state.has_spare && is_small && fs::rename(self.path(segment), self.spare()).is_ok() {
            state.files.remove(&segment);
            state.has_spare = true;
        } else {
            self.remove(state, segment);
        }
    }

    fn remove(&self, state: &mut State, segment: u64) {
        state.files.remove(&segment);
        let _gone_already = fs::remove_file(self.path(segment));
    }

    /// Finds what a dead session kept.
    pub fn find(self: &Arc<Self>) -> Result<Batches> {
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("segment-"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let mut batches = Batches::default();
        let mut state = self.lock();
        for segment in numbers {
            let mut file = open_file(&self.path(segment))?;
            let bytes = file.metadata()?.len();
            let whole = self.find_in(segment, &mut file, bytes, &mut batches, &mut state)?;
            batches.damaged_bytes += bytes - whole;
            let entry = state.files.entry(segment).or_default();
            entry.bytes = bytes;
            entry.is_closed = whole < bytes;
            state.next = segment + 1;
        }
        for found in &batches.blocks {
            state.files.entry(found.stored.segment).or_default().waiting += 1;
        }
        Ok(batches)
    }

    fn find_in(
        self: &Arc<Self>,
        segment: u64,
        file: &mut File,
        bytes: u64,
        batches: &mut Batches,
        state: &mut State,
    ) -> Result<u64> {
        let mut start = 0;
        while start + PREFIX as u64 <= bytes {
            file.seek(SeekFrom::Start(start))?;
            let mut prefix = [0; PREFIX];
            file.read_exact(&mut prefix)?;
            let mut words = prefix
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            let mut word = || words.next().unwrap_or_default();
            let (magic, number, length, expected) = (word(), word(), word(), word());
            let head_end = start + PREFIX as u64 + length.min(MOST_HEAD_BYTES + 1);
            if magic != MAGIC || length > MOST_HEAD_BYTES || head_end > bytes {
                break;
            }
            let mut head = vec![0; length as usize];
            file.read_exact(&mut head)?;
            if checksum(&head, number >> 1) != expected {
                break;
            }
            let Ok(head) = decode(&head, number & SEALED != 0) else {
                break;
            };
            let mut offset = head_end;
            let mut found = Vec::new();
            for (stream_id, kind, events, length, checksum) in head.blocks {
                found.push(Found {
                    stream_id,
                    kind,
                    events,
                    stored: Stored {
                        segments: Arc::clone(self),
                        segment,
                        offset,
                        length: length.min(bytes) as usize,
                        checksum,
                    },
                });
                offset = offset.saturating_add(length);
            }
            if offset > bytes {
                break;
            }
            batches.blocks.append(&mut found);
            batches.announcements.extend(head.announcements);
            batches.marks = head.marks;
            state.batches = (number >> 1) + 1;
            start = offset;
        }
        Ok(start)
    }
}

#[cfg(target_os = "linux")]
fn free_pages(file: &File, offset: u64, length: usize) {
    extern "C" {
        fn fallocate(file: c_int, mode: c_int, offset: c_long, length: c_long) -> c_int;
    }
    const KEEP_SIZE_AND_PUNCH_HOLE: c_int = 3;
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; the file's range only loses its pages.
    let _unsupported = unsafe {
        fallocate(
            file.as_raw_fd(),
            KEEP_SIZE_AND_PUNCH_HOLE,
            offset as c_long,
            length as c_long,
        )
    };
}

#[cfg(not(target_os = "linux"))]
fn free_pages(_: &File, _: u64, _: usize) {}

impl Stored {
    pub fn length(&self) -> usize {
        self.length
    }

    /// The body again.
    pub fn read(&self) -> Result<Vec<u8>> {
        let file = open_file(&self.segments.path(self.segment))?;
        let mut body = vec![0; self.length];
        file.read_exact_at(&mut body, self.offset)?;
        if checksum(&body, 0) == self.checksum {
            Ok(body)
        } else {
            Err(Error::new(ErrorKind::InvalidData, format!("{self:?} is damaged")))
        }
    }

    /// The block is not needed any more; with the last one of its segment, the file goes. `frees` gives its room back at
    /// once: a dead block is found with another checksum, and known by its first byte.
    pub fn settle(&self, frees: bool) {
        let mut state = self.segments.lock();
        let is_last = state
            .files
            .last_key_value()
            .is_some_and(|(&last, _)| last == self.segment);
        let Some(file) = state.files.get_mut(&self.segment) else {
            return;
        };
        file.waiting -= 1;
        if file.waiting == 0 && !is_last {
            self.segments.remove(&mut state, self.segment);
        } else if frees {
            // Under the lock: else the file may be another segment's by now.
            if let Ok(file) = options().write(true).open(self.segments.path(self.segment)) {
                free_pages(&file, self.offset, self.length);
            }
        }
    }

    /// Whether the body was freed by `settle`.
    pub fn is_freed(&self) -> bool {
        let Ok(file) = open_file(&self.segments.path(self.segment)) else {
            return true;
        };
        let mut first = [0];
        file.read_exact_at(&mut first, self.offset).is_ok() && first == [0]
    }
}
