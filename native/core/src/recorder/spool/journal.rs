//! The journal of a session: who it is, and what the addresses in its records mean.
//!
//! Written before the first record that needs it, by plain appends: what was appended survives the process.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use twox_hash::XxHash64;

use crate::codec::bytes::ByteReader;
use crate::codec::error::{wire_error, Result};
use crate::message::template::Template;
use crate::recorder::descriptor::{Description, Descriptor};
use crate::recorder::hushed::hush;

const OPENING: u8 = 1;
const LOG: u8 = 2;
const METRIC: u8 = 3;
const SPAN: u8 = 4;
const COUNTER: u8 = 5;

/// More than a journal with all the descriptors that a process may have.
const MOST_BYTES: u64 = 256 << 20;

/// Length of the payload, kind, checksum.
const ENTRY_HEAD: usize = 24;

/// The journal of this process's session, or -1. Closed by csrc/pages.c in a forked child, which then has none.
static CURRENT: AtomicI32 = AtomicI32::new(-1);

/// What found no room in the journal, to be appended before the next entry. Locked within the registry of descriptors.
static UNWRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Whether there is any.
static IS_BEHIND: AtomicBool = AtomicBool::new(false);

/// The first entry.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Opening {
    /// `RECORD_LAYOUT` of the writer.
    pub layout: u64,
    pub process_id: String,
    pub url: String,
    pub pages: String,
    /// Counts of ticks go on from there only within a boot.
    pub boot_id: String,
    pub announcement: Vec<u8>,
    pub uses_counter: bool,
    pub start_ticks: u64,
    pub start_ns: u64,
    pub start_wall_ns: i64,
    /// What had been dropped before the session.
    pub dropped: Vec<u64>,
    /// Which secrets its events must not show: none when not `scrubs`, else what looks like one, and these patterns.
    pub scrubs: bool,
    pub scrub_patterns: Vec<String>,
}

/// What a counter had come to when the session began.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CounterStart {
    pub descriptor: u64,
    pub integers: i64,
    pub floats: f64,
}

#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn texts(&mut self, texts: &[&str]) {
        for text in texts {
            self.bytes(text.as_bytes());
        }
    }
}

pub fn bytes<'a>(reader: &mut ByteReader<'a>) -> Result<&'a [u8]> {
    let length = reader.u64()?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}

pub fn text(reader: &mut ByteReader<'_>) -> Result<String> {
    String::from_utf8(bytes(reader)?.to_vec()).map_err(|_| wire_error!("a text is not utf-8"))
}

pub fn checksum(bytes: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

fn entry(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(payload.len() + ENTRY_HEAD);
    entry.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    entry.extend_from_slice(&u64::from(kind).to_le_bytes());
    entry.extend_from_slice(&checksum(payload, u64::from(kind)).to_le_bytes());
    entry.extend_from_slice(payload);
    entry
}

pub fn opening_entry(opening: &Opening) -> Vec<u8> {
    let mut payload = Writer::default();
    payload.u64(opening.layout);
    payload.texts(&[&opening.process_id, &opening.url, &opening.pages, &opening.boot_id]);
    payload.bytes(&opening.announcement);
    payload.u64(u64::from(opening.uses_counter));
    payload.u64(opening.start_ticks);
    payload.u64(opening.start_ns);
    payload.u64(opening.start_wall_ns as u64);
    payload.u64(opening.dropped.len() as u64);
    for count in &opening.dropped {
        payload.u64(*count);
    }
    payload.u64(u64::from(opening.scrubs));
    payload.u64(opening.scrub_patterns.len() as u64);
    for pattern in &opening.scrub_patterns {
        payload.bytes(pattern.as_bytes());
    }
    entry(OPENING, &payload.0)
}

fn read_opening(mut reader: ByteReader<'_>) -> Result<Opening> {
    let mut opening = Opening {
        layout: reader.u64()?,
        process_id: text(&mut reader)?,
        url: text(&mut reader)?,
        pages: text(&mut reader)?,
        boot_id: text(&mut reader)?,
        announcement: bytes(&mut reader)?.to_vec(),
        uses_counter: reader.u64()? != 0,
        start_ticks: reader.u64()?,
        start_ns: reader.u64()?,
        start_wall_ns: reader.i64()?,
        dropped: Vec::new(),
        scrubs: true,
        scrub_patterns: Vec::new(),
    };
    for _ in 0..reader.u64()? {
        opening.dropped.push(reader.u64()?);
    }
    if reader.rest().is_empty() {
        return Ok(opening); // of an older core
    }
    opening.scrubs = reader.u64()? != 0;
    for _ in 0..reader.u64()? {
        opening.scrub_patterns.push(text(&mut reader)?);
    }
    Ok(opening)
}

pub fn counter_entry(start: &CounterStart) -> Vec<u8> {
    let mut payload = Writer::default();
    payload.u64(start.descriptor);
    payload.u64(start.integers as u64);
    payload.u64(start.floats.to_bits());
    entry(COUNTER, &payload.0)
}

pub fn descriptor_entry(descriptor: &'static Descriptor) -> Vec<u8> {
    let mut payload = Writer::default();
    payload.u64(std::ptr::from_ref(descriptor) as u64);
    payload.u64(u64::from(descriptor.line));
    payload.texts(&[descriptor.target, descriptor.file]);
    let kind = match &descriptor.description {
        Description::Log { level, template } => {
            payload.u64(u64::from(*level));
            payload.texts(&[template.text()]);
            LOG
        }
        Description::Metric { name, unit, properties } => {
            payload.texts(&[name, unit]);
            payload.u64(properties.len() as u64);
            for (name, value) in properties {
                payload.texts(&[name, value]);
            }
            METRIC
        }
        Description::Span { name } => {
            payload.texts(&[name]);
            SPAN
        }
    };
    entry(kind, &payload.0)
}

/// Appends to the journal of this process's session, if there is one. What finds no room is kept in memory and appended
/// with the next entry, or by `catch_up`. Called within the registry of descriptors.
pub fn append(entry: &[u8]) {
    let descriptor = CURRENT.load(Ordering::Acquire);
    if descriptor < 0 {
        return;
    }
    let mut unwritten = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    unwritten.extend_from_slice(entry);
    // SAFETY: the descriptor is open as long as it is `CURRENT`, and is not closed by this.
    let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
    let _hushed = hush();
    let mut written = 0;
    while written < unwritten.len() {
        match file.write(&unwritten[written..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => written += more,
        }
    }
    unwritten.drain(..written);
    IS_BEHIND.store(!unwritten.is_empty(), Ordering::Release);
}

/// Whether descriptions wait in memory for room in the journal.
pub fn is_behind() -> bool {
    IS_BEHIND.load(Ordering::Acquire)
}

/// From now on entries go to that file. Called within the registry of descriptors.
pub fn begin(descriptor: RawFd) {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).clear();
    IS_BEHIND.store(false, Ordering::Release);
    CURRENT.store(descriptor, Ordering::Release);
}

/// Called by csrc/pages.c in a forked child, and when the session ends.
#[no_mangle]
pub extern "C" fn mm_journal_end(descriptor: c_int) {
    let _other = CURRENT.compare_exchange(descriptor, -1, Ordering::AcqRel, Ordering::Acquire);
}

/// The descriptors of a process that died, by their addresses there.
#[derive(Default)]
pub struct Lexicon {
    texts: HashMap<String, *mut str>,
    descriptors: HashMap<u64, *mut Descriptor>,
    /// Those addresses by ours.
    theirs: HashMap<u64, u64>,
}

impl Lexicon {
    /// # Safety
    /// The result, and what is copied from it, must not be used any more when the lexicon is dropped.
    pub unsafe fn at(&self, address: u64) -> Option<&'static Descriptor> {
        // SAFETY: made from a box that lives as long as the lexicon; the caller promises not to outlive that.
        self.descriptors
            .get(&address)
            .map(|&descriptor| unsafe { &*descriptor })
    }

    /// The address there of one that `at` gave, by its address here.
    pub fn theirs(&self, ours: u64) -> Option<u64> {
        self.theirs.get(&ours).copied()
    }

    fn text(&mut self, reader: &mut ByteReader<'_>) -> Result<&'static str> {
        let text = text(reader)?;
        let kept = match self.texts.get(&text) {
            Some(&known) => known,
            None => {
                let kept = Box::into_raw(text.clone().into_boxed_str());
                self.texts.insert(text, kept);
                kept
            }
        };
        // SAFETY: made from a box that lives as long as the lexicon, and given out by `at` only.
        Ok(unsafe { &*kept })
    }

    fn add(&mut self, kind: u8, mut reader: ByteReader<'_>) -> Result<()> {
        let address = reader.u64()?;
        let line = reader.u64()? as u32;
        let (target, file) = (self.text(&mut reader)?, self.text(&mut reader)?);
        let description = match kind {
            LOG => Description::Log {
                level: (reader.u64()? as u32).clamp(1, 6),
                template: Template::parse(self.text(&mut reader)?),
            },
            METRIC => {
                let (name, unit) = (self.text(&mut reader)?, self.text(&mut reader)?);
                let mut properties = Vec::new();
                for _ in 0..reader.u64()? {
                    properties.push((self.text(&mut reader)?, self.text(&mut reader)?));
                }
                Description::Metric { name, unit, properties }
            }
            _ => Description::Span {
                name: self.text(&mut reader)?,
            },
        };
        if self.descriptors.contains_key(&address) {
            return Ok(());
        }
        let descriptor = Descriptor {
            index: self.descriptors.len(),
            target,
            file,
            line,
            description,
        };
        let kept = Box::into_raw(Box::new(descriptor));
        self.descriptors.insert(address, kept);
        self.theirs.insert(kept as u64, address);
        Ok(())
    }
}

impl Drop for Lexicon {
    fn drop(&mut self) {
        for (_, descriptor) in self.descriptors.drain() {
            // SAFETY: made from a box by `add`, and used by nobody any more as `at` demands.
            drop(unsafe { Box::from_raw(descriptor) });
        }
        for (_, text) in self.texts.drain() {
            // SAFETY: as above, by `text`; the descriptors that pointed to it are gone.
            drop(unsafe { Box::from_raw(text) });
        }
    }
}

/// What a journal says.
#[derive(Default)]
pub struct Journal {
    pub opening: Opening,
    pub counters: Vec<CounterStart>,
    pub lexicon: Lexicon,
    /// Whether it says no more than that because it is damaged.
    pub is_damaged: bool,
}

/// Its opening alone.
pub fn opening(mut file: &File) -> Result<Opening> {
    let mut content = vec![0; ENTRY_HEAD];
    let read = file.read_exact(&mut content).and_then(|()| {
        let length = ByteReader::new(&content).u64().unwrap_or_default();
        file.take(length.min(MOST_BYTES)).read_to_end(&mut content)
    });
    read.map_err(|error| wire_error!("journal: {error}"))?;
    let mut journal = Journal::default();
    read_entry(&mut journal, &mut ByteReader::new(&content), true)?;
    Ok(journal.opening)
}

/// Reads as far as the journal is whole; without an opening it says nothing.
pub fn read(file: &File) -> Result<Journal> {
    let mut content = Vec::new();
    file.take(MOST_BYTES)
        .read_to_end(&mut content)
        .map_err(|error| wire_error!("journal: {error}"))?;
    let mut journal = Journal::default();
    let mut reader = ByteReader::new(&content);
    let mut is_first = true;
    while !reader.rest().is_empty() {
        let read = read_entry(&mut journal, &mut reader, is_first);
        match read {
            Ok(()) => is_first = false,
            Err(error) if is_first => return Err(error),
            Err(_) => {
                journal.is_damaged = true;
                break;
            }
        }
    }
    if is_first {
        return Err(wire_error!("journal: empty"));
    }
    Ok(journal)
}

fn read_entry(journal: &mut Journal, reader: &mut ByteReader<'_>, is_first: bool) -> Result<()> {
    let length = reader.u64()?;
    let kind = reader.u64()?;
    let expected = reader.u64()?;
    let payload = reader.take(usize::try_from(length).unwrap_or(usize::MAX))?;
    if checksum(payload, kind) != expected {
        return Err(wire_error!("journal: an entry of kind {kind} is damaged"));
    }
    let mut payload = ByteReader::new(payload);
    match kind as u8 {
        OPENING if is_first => journal.opening = read_opening(payload)?,
        _ if is_first => return Err(wire_error!("journal: begins with an entry of kind {kind}")),
        LOG | METRIC | SPAN => journal.lexicon.add(kind as u8, payload)?,
        COUNTER => journal.counters.push(CounterStart {
            descriptor: payload.u64()?,
            integers: payload.i64()?,
            floats: f64::from_bits(payload.u64()?),
        }),
        _ => {}
    }
    Ok(())
}
