//! Sends what processes left that died: turns the records in their buffers into the blocks that they would have made, keeps
//! these with the others, and sends all of them as theirs.
//!
//! What is made of the buffers is appended to the dead session's segments together with how far they were read, so whoever
//! is killed in the middle of a recovery leaves a session that can be recovered.

use std::collections::HashMap;
use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::folder;
use super::journal::{self, Journal, Opening};
use super::pages::{self, Pages};
use super::segments::{Batches, Marks, Segments, Stored, StreamMark};
use super::RECORD_LAYOUT;
use crate::codec::error::{wire_error, Result, WireError};
use crate::recorder::announcement::Process;
use crate::recorder::blocks::Office;
use crate::recorder::clock::Clock;
use crate::recorder::cpu_stream::ThreadFacts;
use crate::recorder::credentials::Credentials;
use crate::recorder::descriptor::Descriptor;
use crate::recorder::descriptors::log_descriptor;
use crate::recorder::hotpath::{self, Position};
use crate::recorder::identity::boot_id;
use crate::recorder::log_stream::LogOutput;
use crate::recorder::outbox::{Block, Outbox, Remains, Subject};
use crate::recorder::scrubber::Scrubber;
use crate::recorder::span_sampling::SpanSampling;
use crate::recorder::streams::Streams;

const WARN: u32 = 3;
/// Bytes of buffers of which blocks are made at a time.
const PART_BYTES: usize = 4 << 20;
/// How long nobody takes for making a session's folder, which is a matter of milliseconds.
const LONGEST_MAKING: Duration = Duration::from_secs(60);
/// Folders that could not be read are kept for a look, but not without end.
const MOST_SET_ASIDE: usize = 8;

/// A dead session, all of it in blocks.
struct Sealed {
    opening: Opening,
    batches: Batches,
    /// Events that came from the buffers.
    recovered_events: u64,
    /// Parts of the files that could not be read.
    damaged: u64,
}

/// What came of looking through a spool.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    pub sessions: u64,
    pub sent_events: u64,
    pub refused_events: u64,
    /// Sessions that were set aside, or of which parts were damaged.
    pub damaged: u64,
    pub last_error: Option<String>,
}

/// Why a session could not be recovered.
enum Trouble {
    /// Its files can't be what they should be, and never will.
    Unreadable(String),
    /// There was no room, or something of the kind: somebody may succeed later.
    NotNow(String),
}

fn unreadable(error: impl std::fmt::Display) -> Trouble {
    Trouble::Unreadable(error.to_string())
}

fn not_now(error: impl std::fmt::Display) -> Trouble {
    Trouble::NotNow(format!("segments: {error}"))
}

fn told(error: impl std::fmt::Display) -> WireError {
    wire_error!("{error}")
}

/// Whose the session is, without claiming it.
pub fn opening_of(path: &Path) -> Result<Opening> {
    let opening = journal::opening(&folder::open_file(&path.join("journal")).map_err(told)?)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if opening.process_id != name {
        return Err(wire_error!("journal: of process {}", opening.process_id));
    }
    Ok(opening)
}

/// Where its buffers are. Only the places where we put them are looked at, whatever the journal says.
pub fn pages_of(path: &Path, opening: &Opening) -> Option<PathBuf> {
    let in_memory = folder::pages_in_memory().join(&opening.process_id);
    [path.to_owned(), in_memory]
        .into_iter()
        .find(|place| place.display().to_string() == opening.pages)
}

fn clock_of(opening: &Opening, pages: &Pages) -> Clock {
    let anchor = (opening.start_ticks, opening.start_ns);
    let noted = pages
        .control
        .clock
        .filter(|(_, nanoseconds)| *nanoseconds > opening.start_ns + 1_000_000);
    // Within a boot both clocks have gone on since, so that our own reading tells their relation best.
    let is_same_boot = !opening.boot_id.is_empty() && opening.boot_id == boot_id();
    let later = noted.or_else(|| is_same_boot.then(hotpath::clock_pair));
    Clock::of_the_dead(opening.uses_counter, anchor, opening.start_wall_ns, later)
}

/// What was made of the buffers of a session.
#[derive(Default)]
struct Emptied {
    events: u64,
    /// Parts that could not be read.
    damaged: u64,
}

/// Makes blocks of what is in the buffers, as the process itself would have, and keeps them; a part at a time, each with
/// how far that is, so that neither memory nor the work of a recovery that is killed grows with the buffers.
fn empty_buffers(
    journal: &Journal,
    batches: &Batches,
    pages: &Pages,
    segments: &Arc<Segments>,
) -> std::io::Result<Emptied> {
    let opening = &journal.opening;
    let clock = clock_of(opening, pages);
    let process = Process {
        id: opening.process_id.as_str().into(),
        ..Process::default()
    };
    let outbox = Arc::new(Outbox::new(0, Arc::new(Credentials::new(Vec::new(), false)), None));
    let office = Office::new(Arc::new(process), outbox, Arc::default(), &clock);
    let mut streams = Streams::new(office, &clock, &SpanSampling::All, &log_output_of(opening));
    // SAFETY: the streams, which keep what it gives, end with this function; the journal outlives it.
    let descriptor_at = |address| unsafe { journal.lexicon.at(address) };
    let threads: HashMap<u64, (u64, String)> = pages
        .buffers
        .iter()
        .map(|buffer| (buffer.serial, (buffer.native_id, buffer.name.clone())))
        .collect();
    streams.restore(
        &batches.marks.streams,
        |serial| threads.get(&serial).cloned(),
        descriptor_at,
    );

    let mut positions: HashMap<u64, Position> = batches
        .marks
        .positions
        .iter()
        .map(|mark| (mark.serial, *mark))
        .collect();
    let mut emptied = Emptied {
        events: 0,
        damaged: pages.damaged,
    };
    let (mut last_ns, mut uncut_bytes) = (clock.start_ns(), 0);
    for buffer in &pages.buffers {
        let from = match positions.get(&buffer.serial) {
            Some(read) if buffer.sequence < read.sequence => continue,
            Some(read) if buffer.sequence == read.sequence => read.offset,
            _ => 0,
        };
        let facts = ThreadFacts {
            serial: buffer.serial,
            native_id: buffer.native_id,
            name: &buffer.name,
        };
        let records = buffer.records(from)?;
        let run = streams.read(&facts, &records, &clock, descriptor_at);
        emptied.events += run.events;
        emptied.damaged += u64::from(run.unreadable > 0);
        last_ns = last_ns.max(run.last_ns);
        positions.insert(
            buffer.serial,
            Position {
                serial: buffer.serial,
                sequence: buffer.sequence,
                offset: buffer.end,
            },
        );
        uncut_bytes += records.len();
        if uncut_bytes >= PART_BYTES {
            // Threads are read one after the other, so the next events may be earlier than these: no block ends later
            // than its last event.
            streams.cut(0, false, |_| false);
            let marks = Marks {
                positions: positions.values().copied().collect(),
                streams: marks_of(&mut streams, journal),
                counters: batches.marks.counters.clone(),
                dropped: batches.marks.dropped.clone(),
                is_sealed: false,
            };
            keep(segments, &marks, &streams.office.take_cut())?;
            uncut_bytes = 0;
        }
    }
    let mut before: HashMap<u64, (i64, f64)> = journal
        .counters
        .iter()
        .map(|start| (start.descriptor, (start.integers, start.floats)))
        .collect();
    before.extend(
        batches
            .marks
            .counters
            .iter()
            .map(|mark| (mark.descriptor, (mark.integers, mark.floats))),
    );
    for sum in &pages.control.sums {
        if let Some(descriptor) = descriptor_at(sum.descriptor) {
            let before = before.get(&sum.descriptor).copied().unwrap_or_default();
            streams.add_counter(last_ns, descriptor, before, (sum.integers, sum.floats));
        }
    }
    tell_end(
        &mut streams,
        last_ns,
        emptied.events,
        dropped_since(opening, batches, pages),
        emptied.damaged,
    );
    streams.cut(last_ns, false, |_| false);
    let marks = Marks {
        positions: positions.values().copied().collect(),
        streams: marks_of(&mut streams, journal),
        counters: pages.control.sums.clone(),
        dropped: pages.control.dropped.clone(),
        is_sealed: true,
    };
    keep(segments, &marks, &streams.office.take_cut())?;
    Ok(emptied)
}

/// Where the streams stand, in the words of the process that died: its addresses.
fn marks_of(streams: &mut Streams, journal: &Journal) -> Vec<StreamMark> {
    let mut marks = streams.marks();
    for span in marks.iter_mut().flat_map(|mark| &mut mark.open) {
        span.descriptor = journal.lexicon.theirs(span.descriptor).unwrap_or_default();
    }
    marks
}

fn keep(segments: &Arc<Segments>, marks: &Marks, blocks: &[Block]) -> std::io::Result<()> {
    let kept: Vec<_> = blocks.iter().map(Block::kept).collect();
    segments.append(marks, &kept).map(drop)
}

/// What the process had decided about secrets.
fn log_output_of(opening: &Opening) -> LogOutput {
    // Patterns that this core does not take are of another one, whose buffers it does not read either.
    let scrubber = Scrubber::new(opening.scrubs, &opening.scrub_patterns);
    LogOutput {
        scrubber: Arc::new(scrubber.unwrap_or_default()),
        ..LogOutput::default()
    }
}

/// Events for which no buffer was found and which the process could not tell any more.
fn dropped_since(opening: &Opening, batches: &Batches, pages: &Pages) -> u64 {
    let told = if batches.marks.dropped.is_empty() {
        &opening.dropped
    } else {
        &batches.marks.dropped
    };
    let now = pages.control.dropped.iter().enumerate();
    now.map(|(kind, count)| count.saturating_sub(told.get(kind).copied().unwrap_or(0)))
        .fold(0, u64::saturating_add)
}

fn tell_end(streams: &mut Streams, ns: u64, events: u64, dropped: u64, damaged: u64) {
    let own: Option<&'static Descriptor> = log_descriptor(WARN, ("micromegas.recorder", "", 0), "%s");
    let Some(descriptor) = own else { return };
    let mut message = format!("the process ended without shutdown; {events} events were recovered from its buffers");
    if dropped > 0 {
        message.push_str(&format!("; {dropped} more had found no buffer"));
    }
    if damaged > 0 {
        message.push_str(&format!("; {damaged} parts of the spool could not be read"));
    }
    streams.log.add_message(ns, descriptor, &message);
}

/// Has all of a dead session in blocks.
fn seal(claim: &Claim) -> std::result::Result<Sealed, Trouble> {
    let file = folder::open_file(&claim.path.join("journal")).map_err(unreadable)?;
    let journal = journal::read(&file).map_err(unreadable)?;
    let name = claim
        .path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if journal.opening.process_id != name {
        return Err(unreadable(format!(
            "journal: of process {}",
            journal.opening.process_id
        )));
    }
    let segments = Segments::new(&claim.path);
    let mut batches = segments.find().map_err(not_now)?;
    let mut damaged = u64::from(batches.damaged_bytes > 0) + u64::from(journal.is_damaged);
    let mut recovered_events = 0;
    let pages_folder = pages_of(&claim.path, &journal.opening);
    if !batches.marks.is_sealed {
        if journal.opening.layout == RECORD_LAYOUT {
            let pages = pages_folder
                .as_deref()
                .map(|place| pages::read(place, RECORD_LAYOUT))
                .unwrap_or_default();
            let emptied = empty_buffers(&journal, &batches, &pages, &segments).map_err(not_now)?;
            batches = Segments::new(&claim.path).find().map_err(not_now)?;
            recovered_events = emptied.events;
            damaged += emptied.damaged;
        } else {
            damaged += 1;
        }
    }
    claim.remove_pages();
    Ok(Sealed {
        opening: journal.opening,
        batches,
        recovered_events,
        damaged,
    })
}

/// The same, whatever the files hold. A session that can't be read is set aside.
fn sealed(claim: Claim) -> std::result::Result<(Claim, Sealed), String> {
    let path = claim.path.clone();
    match catch_unwind(AssertUnwindSafe(|| seal(&claim))) {
        Ok(Ok(sealed)) => Ok((claim, sealed)),
        Ok(Err(Trouble::NotNow(error))) => Err(format!("{}: {error}", path.display())),
        Ok(Err(Trouble::Unreadable(error))) => Err(set_aside(claim, &error)),
        Err(_) => Err(set_aside(claim, "a defect of the recovery")),
    }
}

/// Recovers one session; gives what came of it, or None when the end came first.
fn recover(claim: Claim, outbox: &Outbox) -> std::result::Result<Option<Recovered>, String> {
    let path = claim.path.clone();
    let (claim, sealed) = sealed(claim)?;
    let remains = Arc::new(Remains::default());
    let (announcements, blocks, lost) = requests(&sealed);
    remains.lost_events.store(lost, Ordering::Release);
    if !blocks.is_empty() {
        outbox.push_remains(announcements, blocks, &remains);
        if !outbox.wait_remains(&remains) {
            return Ok(None); // the claim ends; what was sent will be sent again, which servers notice
        }
    }
    let result = Recovered {
        sessions: 1,
        sent_events: remains.sent_events.load(Ordering::Acquire),
        refused_events: remains.lost_events.load(Ordering::Acquire),
        damaged: sealed.damaged,
        last_error: (sealed.damaged > 0).then(|| {
            format!(
                "{}: {} parts could not be read, {} events of the buffers were",
                path.display(),
                sealed.damaged,
                sealed.recovered_events
            )
        }),
    };
    claim.remove().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(result))
}

/// Removes the folders of processes that were killed while they made them, before their first event.
fn remove_unnamed(spool: &Path) {
    for path in folder::all_unnamed(spool).unwrap_or_default() {
        let made = fs::metadata(&path).and_then(|found| found.modified());
        let age = made.ok().and_then(|made| made.elapsed().ok());
        if age.is_none_or(|age| age < LONGEST_MAKING) {
            continue; // between being made and being locked, perhaps
        }
        // Without a lock it is removed by this, too.
        if let Ok(Some(claim)) = Claim::take(&path) {
            claim.remove_pages();
            let _somebody_else_did = claim.remove();
        }
    }
}

/// Turns the buffers of dead sessions, which are in memory, into blocks, which are not; keeps what was left below a number
/// of bytes by removing the oldest. Needs no server, so that a program that dies again and again fills neither.
pub fn tidy(spool: &Path, most_bytes: u64) -> Option<String> {
    remove_unnamed(spool);
    let sessions = folder::private_folder(spool)
        .and_then(|()| folder::sessions(spool))
        .ok()?;
    let mut error = None;
    let mut left = Vec::new();
    for path in sessions {
        let can_seal = opening_of(&path).is_ok_and(|opening| {
            opening.layout == RECORD_LAYOUT && pages_of(&path, &opening).is_some_and(|place| pages::are_in(&place))
        });
        if can_seal {
            if let Ok(Some(claim)) = Claim::take(&path) {
                error = sealed(claim).err().or(error);
            }
        }
        let written = fs::metadata(path.join("journal")).and_then(|found| found.modified());
        left.extend(written.ok().map(|written| (written, path)));
    }
    left.sort();
    let mut bytes: u64 = left.iter().map(|(_, path)| folder::bytes_in(path)).sum();
    for (_, path) in left {
        if bytes <= most_bytes {
            break;
        }
        if let Ok(Some(claim)) = Claim::take(&path) {
            bytes -= folder::bytes_in(&path);
            claim.remove_pages();
            if claim.remove().is_ok() {
                error = Some(format!("{}: removed unsent, for the spool was full", path.display()));
            }
        }
    }
    error
}

type Requests = (Vec<(Subject, Vec<u8>)>, Vec<(Subject, Stored)>, u64);

/// What to send, and the events of blocks whose bodies are damaged.
fn requests(sealed: &Sealed) -> Requests {
    let process_id: Arc<str> = sealed.opening.process_id.as_str().into();
    let mut ids: HashMap<&str, Arc<str>> = HashMap::new();
    let mut announcements = vec![(
        Subject::Process {
            process_id: Arc::clone(&process_id),
        },
        sealed.opening.announcement.clone(),
    )];
    let (mut blocks, mut lost) = (Vec::new(), 0);
    for found in &sealed.batches.blocks {
        let Some(body) = sealed.batches.announcements.get(&found.stream_id) else {
            lost += found.events;
            continue;
        };
        if found.stored.is_freed() {
            continue; // dropped by the process, which counted it
        }
        let stream_id = ids.entry(&found.stream_id).or_insert_with(|| {
            let stream_id: Arc<str> = found.stream_id.as_str().into();
            let subject = Subject::Stream {
                process_id: Arc::clone(&process_id),
                stream_id: Arc::clone(&stream_id),
            };
            announcements.push((subject, body.clone()));
            stream_id
        });
        let subject = Subject::Block {
            process_id: Arc::clone(&process_id),
            stream_id: Arc::clone(stream_id),
            kind: found.kind,
            events: found.events,
        };
        blocks.push((subject, found.stored.clone()));
    }
    (announcements, blocks, lost)
}

fn set_aside(claim: Claim, error: &str) -> String {
    claim.remove_pages();
    let path = claim.path.clone();
    let spool = path.parent().map(Path::to_owned).unwrap_or_default();
    let kept = claim.set_aside();
    forget_oldest_aside(&spool);
    match kept {
        Ok(()) => format!("{}: set aside: {error}", path.display()),
        Err(trouble) => format!("{}: {error}; and {trouble}", path.display()),
    }
}

fn forget_oldest_aside(spool: &Path) {
    let Ok(entries) = fs::read_dir(spool) else { return };
    let mut aside: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".unreadable"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    aside.sort();
    let surplus = aside.len().saturating_sub(MOST_SET_ASIDE);
    for (_, path) in aside.into_iter().take(surplus) {
        let _gone = fs::remove_dir_all(path);
    }
}

/// Recovers the dead sessions of a spool one after the other: those for that server, or all.
pub fn recover_all(spool: &Path, url: Option<&str>, outbox: &Outbox) -> Recovered {
    let mut result = Recovered::default();
    let sessions = match folder::private_folder(spool).and_then(|()| folder::sessions(spool)) {
        Ok(sessions) => sessions,
        Err(error) => {
            result.last_error = Some(error.to_string());
            return result;
        }
    };
    for path in sessions {
        // Nobody sends to a server that the process did not mean. What can't be read is set aside below.
        if url.is_some_and(|url| opening_of(&path).is_ok_and(|opening| opening.url != url)) {
            continue;
        }
        let claim = match Claim::take(&path) {
            Ok(Some(claim)) => claim,
            Ok(None) => continue,
            Err(error) => {
                result.damaged += 1;
                result.last_error = Some(format!("{}: {error}", path.display()));
                continue;
            }
        };
        match recover(claim, outbox) {
            Ok(Some(one)) => {
                result.sessions += one.sessions;
                result.sent_events += one.sent_events;
                result.refused_events += one.refused_events;
                result.damaged += one.damaged;
                result.last_error = one.last_error.or(result.last_error);
            }
            Ok(None) => break,
            Err(error) => {
                result.damaged += 1;
                result.last_error = Some(error);
            }
        }
    }
    result
}
