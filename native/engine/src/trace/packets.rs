//! Packets of a trace: one sequence per track, so that a packet need not name its track, and tells its time as the
//! difference to the one before. Field numbers are those of perfetto's `trace_packet.proto` and what it includes.

use super::interning::{Explained, Names};
use super::protobuf::{bytes, double, fixed64, int, message, text, uint, varint};

const TRACE_PACKET: u8 = 1 << 3 | 2;

const CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;

// Clocks: the wall clock, the one that viewers show (both are UTC here), and that of a sequence.
const REALTIME: u64 = 1;
const BOOTTIME: u64 = 6;
const SEQUENCE_CLOCK: u64 = 64;

const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;

/// Names of annotations; their numbers are the positions, from 1.
const ANNOTATIONS: [&str; 6] = ["level", "target", "message", "properties", "span_id", "parent_span_id"];
pub const LEVEL: u64 = 1;
pub const TARGET: u64 = 2;
pub const MESSAGE: u64 = 3;
pub const PROPERTIES: u64 = 4;
pub const SPAN_ID: u64 = 5;
pub const PARENT_SPAN_ID: u64 = 6;

/// What a track shows beside its name.
pub enum TrackKind<'a> {
    Thread { pid: i64, tid: i64 },
    Counter { unit: &'a str },
    Plain,
}

/// A track that exists in the trace, with the state of its sequence.
struct Track {
    uuid: u64,
    last_time: i64,
    epoch: u64,
    events: Explained,
    categories: Explained,
    locations: Explained,
}

/// Names of an event by their numbers.
#[derive(Clone, Copy)]
pub struct EventNames {
    pub event: u32,
    pub category: u32,
    pub location: u32,
}

/// The packets so far, until somebody takes them. Times of a track must not run backwards.
#[derive(Default)]
pub struct Packets {
    pub names: Names,
    out: Vec<u8>,
    tracks: Vec<Track>,
    epoch: u64,
    body: Vec<u8>,
    interned: Vec<u8>,
    event: Vec<u8>,
}

impl Packets {
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The first packets: the process, and what time it is.
    pub fn process(&mut self, uuid: u64, pid: i64, name: &str, labels: &[String], time: i64) {
        self.whole(|packet| {
            uint(packet, 10, 1);
            uint(packet, 13, CLEARED | NEEDS_STATE);
            uint(packet, 87, 1);
            message(packet, 60, |track| {
                uint(track, 1, uuid);
                message(track, 3, |process| {
                    int(process, 1, pid);
                    text(process, 6, name);
                    for label in labels {
                        text(process, 8, label);
                    }
                });
            });
        });
        self.whole(|packet| {
            uint(packet, 10, 1);
            message(packet, 6, |snapshot| {
                clock(snapshot, BOOTTIME, time, false);
                clock(snapshot, REALTIME, time, false);
            });
        });
    }

    /// A new track; the handle is for the functions below.
    pub fn track(&mut self, uuid: u64, parent: u64, name: &str, kind: &TrackKind<'_>, time: i64) -> usize {
        let handle = self.tracks.len();
        self.tracks.push(Track {
            uuid,
            last_time: time,
            epoch: self.epoch,
            events: Explained::default(),
            categories: Explained::default(),
            locations: Explained::default(),
        });
        self.begin_sequence(handle, time, true);
        self.whole(|packet| {
            uint(packet, 10, sequence(handle));
            message(packet, 60, |track| {
                uint(track, 1, uuid);
                uint(track, 5, parent);
                match kind {
                    TrackKind::Thread { pid, tid } => message(track, 4, |thread| {
                        int(thread, 1, *pid);
                        int(thread, 2, *tid);
                        text(thread, 5, name);
                    }),
                    TrackKind::Counter { unit } => {
                        text(track, 2, name);
                        message(track, 8, |counter| text(counter, 6, unit));
                    }
                    TrackKind::Plain => text(track, 2, name),
                }
            });
        });
        handle
    }

    pub fn uuid(&self, track: usize) -> u64 {
        self.tracks[track].uuid
    }

    /// Forgets all names when there are too many; none of their numbers may be used any more. Tells whether it did.
    pub fn bound_names(&mut self) -> bool {
        let is_full = self.names.is_full();
        if is_full {
            self.names = Names::default();
            self.epoch += 1;
        }
        is_full
    }

    /// A span begins; `more` adds fields to the event.
    #[inline]
    pub fn slice_begin(&mut self, track: usize, time: i64, names: EventNames, more: impl FnOnce(&mut Vec<u8>)) {
        self.event.clear();
        uint(&mut self.event, 9, SLICE_BEGIN);
        self.prepare(track, time);
        self.name(track, names.event);
        self.category(track, names.category);
        self.location(track, names.location);
        more(&mut self.event);
        self.packet(track, time);
    }

    /// The innermost span of the track ends.
    #[inline]
    pub fn slice_end(&mut self, track: usize, time: i64) {
        self.event.clear();
        uint(&mut self.event, 9, SLICE_END);
        self.prepare(track, time);
        self.packet(track, time);
    }

    pub fn counter(&mut self, track: usize, time: i64, value: f64) {
        self.event.clear();
        uint(&mut self.event, 9, COUNTER);
        double(&mut self.event, 44, value);
        self.prepare(track, time);
        self.packet(track, time);
    }

    /// Something without a duration, under a name that is not interned.
    pub fn instant(&mut self, track: usize, time: i64, name: &str, category: u32, more: impl FnOnce(&mut Vec<u8>)) {
        self.event.clear();
        uint(&mut self.event, 9, INSTANT);
        text(&mut self.event, 23, name);
        self.prepare(track, time);
        self.category(track, category);
        more(&mut self.event);
        self.packet(track, time);
    }

    fn prepare(&mut self, track: usize, time: i64) {
        self.interned.clear();
        if self.tracks[track].epoch != self.epoch {
            let state = &mut self.tracks[track];
            state.epoch = self.epoch;
            state.events = Explained::default();
            state.categories = Explained::default();
            state.locations = Explained::default();
            self.begin_sequence(track, time, false);
        }
    }

    #[inline]
    fn name(&mut self, track: usize, number: u32) {
        uint(&mut self.event, 10, iid(number));
        if self.tracks[track].events.add(number) {
            interned_text(&mut self.interned, 2, number, self.names.events.text(number));
        }
    }

    #[inline]
    fn category(&mut self, track: usize, number: u32) {
        uint(&mut self.event, 3, iid(number));
        if self.tracks[track].categories.add(number) {
            interned_text(&mut self.interned, 1, number, self.names.categories.text(number));
        }
    }

    #[inline]
    fn location(&mut self, track: usize, number: u32) {
        uint(&mut self.event, 34, iid(number));
        if self.tracks[track].locations.add(number) {
            let (file, line) = self.names.locations.place(number);
            let file = self.names.files.text(file);
            message(&mut self.interned, 4, |location| {
                uint(location, 1, iid(number));
                text(location, 2, file);
                uint(location, 4, u64::from(line));
            });
        }
    }

    /// The event at hand as a packet.
    #[inline]
    fn packet(&mut self, track: usize, time: i64) {
        let state = &mut self.tracks[track];
        debug_assert!(time >= state.last_time);
        let elapsed = time.wrapping_sub(state.last_time) as u64;
        state.last_time = time;
        let body = &mut self.body;
        body.clear();
        uint(body, 8, elapsed);
        uint(body, 10, sequence(track));
        if !self.interned.is_empty() {
            bytes(body, 12, &self.interned);
        }
        uint(body, 13, NEEDS_STATE);
        bytes(body, 11, &self.event);
        self.out.push(TRACE_PACKET);
        varint(&mut self.out, body.len() as u64);
        self.out.extend_from_slice(body);
    }

    /// What a reader has to know before anything else of a sequence: which track, which clock.
    fn begin_sequence(&mut self, track: usize, time: i64, is_first: bool) {
        let uuid = self.tracks[track].uuid;
        self.tracks[track].last_time = time;
        self.whole(|packet| {
            uint(packet, 10, sequence(track));
            uint(packet, 13, CLEARED);
            if is_first {
                uint(packet, 87, 1);
            }
            message(packet, 59, |defaults| {
                uint(defaults, 58, SEQUENCE_CLOCK);
                message(defaults, 11, |event| uint(event, 11, uuid));
            });
            message(packet, 12, |interned| {
                for (position, name) in ANNOTATIONS.iter().enumerate() {
                    interned_text(interned, 3, position as u32, name);
                }
            });
            message(packet, 6, |snapshot| {
                clock(snapshot, BOOTTIME, time, false);
                clock(snapshot, SEQUENCE_CLOCK, time, true);
            });
        });
    }

    fn whole(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut packet = Vec::new();
        write(&mut packet);
        self.out.push(TRACE_PACKET);
        varint(&mut self.out, packet.len() as u64);
        self.out.extend_from_slice(&packet);
    }
}

/// The first sequence is the process's own.
fn sequence(track: usize) -> u64 {
    track as u64 + 2
}

/// Numbers of names begin with 1 in a trace.
fn iid(number: u32) -> u64 {
    u64::from(number) + 1
}

fn interned_text(out: &mut Vec<u8>, field: u32, number: u32, name: &str) {
    message(out, field, |entry| {
        uint(entry, 1, iid(number));
        text(entry, 2, name);
    });
}

fn clock(out: &mut Vec<u8>, id: u64, time: i64, is_incremental: bool) {
    message(out, 1, |clock| {
        uint(clock, 1, id);
        int(clock, 2, time);
        if is_incremental {
            uint(clock, 3, 1);
        }
    });
}

/// A text beside an event, under one of the names above.
pub fn annotate_text(event: &mut Vec<u8>, name: u64, value: &str) {
    message(event, 4, |annotation| {
        uint(annotation, 1, name);
        text(annotation, 6, value);
    });
}

/// A number beside an event.
pub fn annotate_int(event: &mut Vec<u8>, name: u64, value: i64) {
    message(event, 4, |annotation| {
        uint(annotation, 1, name);
        int(annotation, 4, value);
    });
}

/// The event is where a flow begins.
pub fn flow_out(event: &mut Vec<u8>, id: u64) {
    fixed64(event, 47, id);
}

/// The event is where a flow ends.
pub fn flow_in(event: &mut Vec<u8>, id: u64) {
    fixed64(event, 48, id);
}
