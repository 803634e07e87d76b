//! The C side as Rust sees it (csrc/buffer.c, buffer_reader.c, counter.c, clock.c). Only the collector may use the consumer functions.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::descriptor::Descriptor;

/// An opaque `mm_thread`.
#[repr(C)]
pub struct RawThread {
    _private: [u8; 0],
}

/// `mm_sum`: written by callers, never freed.
#[repr(C)]
pub struct RawSum {
    integers: AtomicU64,
    floats: AtomicU64,
    /// A `Descriptor`.
    descriptor: *const c_void,
    next: *const RawSum,
}

/// `enum mm_recording`.
pub const RECORDING_OFF: c_int = 0;
pub const RECORDING_ON: c_int = 1;

/// `MM_NAME_BYTES`.
const NAME_BYTES: usize = 256;
const THREAD_LIVE: c_int = 2;
const THREAD_ENDED: c_int = 3;

extern "C" {
    pub fn mm_module_add(module: *mut pyo3::ffi::PyObject) -> c_int;
    pub fn mm_buffers_init(namer: *mut pyo3::ffi::PyObject, memory_limit: u64) -> c_int;
    pub fn mm_set_recording(recording: c_int);
    pub fn mm_async_ids_restart(first: u64, trace: *const c_char);
    pub fn mm_clock_choose(force_monotonic: c_int);
    static mm_clock_uses_counter: c_int;
    fn mm_clock_pair(ticks: *mut u64, monotonic_ns: *mut u64);
    fn mm_block_signals();
    fn mm_catch_fatal_signals();
    fn mm_leave_fatal_signals();
    fn mm_catch_termination(signal: c_int, replace_handler: c_int) -> c_int;
    fn mm_die_by(signal: c_int);
    fn mm_stderr_is_terminal() -> c_int;
    fn mm_write_stderr(text: *const c_char, size: usize) -> c_int;
    fn mm_pool_prepare();
    fn mm_first_thread() -> *mut RawThread;
    fn mm_next_thread(thread: *const RawThread) -> *mut RawThread;
    fn mm_thread_describe(
        thread: *const RawThread,
        serial: *mut u64,
        native_id: *mut u64,
        name: *mut c_char,
        name_size: *mut usize,
    ) -> c_int;
    fn mm_thread_read(thread: *mut RawThread, begin: *mut *const u8) -> usize;
    fn mm_thread_advance(thread: *mut RawThread, size: usize);
    fn mm_thread_position(thread: *const RawThread, sequence: *mut u64, offset: *mut u64);
    fn mm_thread_forgo(thread: *mut RawThread);
    fn mm_buffers_begin(with_folder: c_int);
    fn mm_buffers_want_folder();
    fn mm_blocks_outside_file() -> u64;
    fn mm_pages_open(folder: c_int) -> c_int;
    fn mm_pages_close(folder: c_int);
    fn mm_hold(place: c_int, descriptor: c_int);
    fn mm_let_go(place: c_int, descriptor: c_int);
    fn mm_note_clock(ticks: u64, nanoseconds: u64);
    fn mm_thread_release(thread: *mut RawThread);
    fn mm_thread_recycle(thread: *mut RawThread);
    fn mm_dropped_events(kind: c_int) -> u64;
    fn mm_first_sum() -> *const RawSum;
    static mm_refused_values: AtomicU64;
}

/// One instant: counter ticks and monotonic nanoseconds.
pub fn clock_pair() -> (u64, u64) {
    let (mut ticks, mut nanoseconds) = (0, 0);
    // SAFETY: both pointers are valid for writes during the call.
    unsafe { mm_clock_pair(&mut ticks, &mut nanoseconds) };
    (ticks, nanoseconds)
}

/// Whether event times are counter ticks (else they are monotonic nanoseconds already).
pub fn clock_uses_counter() -> bool {
    // SAFETY: written once by `mm_clock_choose`, before the first session starts its threads.
    unsafe { mm_clock_uses_counter != 0 }
}

pub fn prepare_pool() {
    // SAFETY: only the collector calls this, as the pool's only filler besides releasing blocks.
    unsafe { mm_pool_prepare() }
}

/// Events of a kind that found no memory, since the process began.
pub fn dropped_events(kind: u8) -> u64 {
    // SAFETY: reads an atomic counter of an array with an element for each kind; the callers pass kinds below KINDS.
    unsafe { mm_dropped_events(c_int::from(kind)) }
}

/// The same of all kinds.
pub fn all_dropped_events() -> Vec<u64> {
    (0..super::record::KINDS).map(dropped_events).collect()
}

/// Values that were no numbers, or too many properties, since the process began.
pub fn refused_values() -> u64 {
    // SAFETY: a plain 64-bit integer in C, accessed atomically by both sides.
    unsafe { mm_refused_values.load(Ordering::Relaxed) }
}

/// The descriptor that a record of this process names.
pub fn descriptor_at(address: u64) -> Option<&'static Descriptor> {
    // SAFETY: the hot path writes only addresses of immortal descriptors, aligned to 16 bytes.
    unsafe { (address as usize as *const Descriptor).as_ref() }
}

/// How far a thread's chain of buffers was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    pub serial: u64,
    pub sequence: u64,
    pub offset: u64,
}

/// A thread of the program whose buffer can be read.
pub struct ProgramThread {
    raw: *mut RawThread,
    pub serial: u64,
    pub native_id: u64,
    pub name: String,
    pub ended: bool,
}

impl ProgramThread {
    /// Whether committed records wait to be drained.
    pub fn has_news(&self) -> bool {
        let mut begin = std::ptr::null();
        // SAFETY: threads are never freed, and the collector is the only reader of this chain; nothing is consumed.
        unsafe { mm_thread_read(self.raw, &mut begin) > 0 }
    }

    /// Hands committed records to `sink`, a run of records per call, until none is left or `sink` wants no more.
    pub fn drain(&self, mut sink: impl FnMut(&[u8]) -> bool) {
        loop {
            let mut begin = std::ptr::null();
            // SAFETY: threads are never freed, and the collector is the only reader of this chain.
            let size = unsafe { mm_thread_read(self.raw, &mut begin) };
            if size == 0 {
                return;
            }
            // SAFETY: the C side gave `size` committed bytes that stay valid and unchanged until `mm_thread_advance`.
            let more = sink(unsafe { std::slice::from_raw_parts(begin, size) });
            // SAFETY: as above; the bytes were all consumed.
            unsafe { mm_thread_advance(self.raw, size) };
            if !more {
                return;
            }
        }
    }

    /// How far it was drained.
    pub fn position(&self) -> Position {
        let (mut sequence, mut offset) = (0, 0);
        // SAFETY: threads are never freed, the collector is the only reader; both pointers are valid for writes.
        unsafe { mm_thread_position(self.raw, &mut sequence, &mut offset) };
        Position {
            serial: self.serial,
            sequence,
            offset,
        }
    }

    /// What was drained is not kept elsewhere, and still must not be read again after the process has died.
    pub fn forgo(&self) {
        // SAFETY: as above.
        unsafe { mm_thread_forgo(self.raw) }
    }

    /// Gives back the memory of what was drained, which must be safe elsewhere.
    pub fn release(&self) {
        // SAFETY: threads are never freed, and the collector is the only reader of this chain.
        unsafe { mm_thread_release(self.raw) }
    }

    /// Gives the place of an ended thread to a later one. Its buffer must have been drained after `ended` was seen.
    pub fn recycle(self) {
        debug_assert!(self.ended);
        // SAFETY: the thread has ended, so it writes no more, and its buffer was drained by the only reader.
        unsafe { mm_thread_recycle(self.raw) }
    }
}

/// The threads that have a buffer now.
pub fn program_threads() -> Vec<ProgramThread> {
    let mut found = Vec::new();
    // SAFETY: the list only grows, at its head, by release stores.
    let mut raw = unsafe { mm_first_thread() };
    while !raw.is_null() {
        let (mut serial, mut native_id, mut name, mut name_size) = (0, 0, [0u8; NAME_BYTES], 0);
        // SAFETY: threads are never freed; the out pointers are valid for writes, that of the name for as many bytes as
        // a name can have.
        let state = unsafe {
            mm_thread_describe(
                raw,
                &mut serial,
                &mut native_id,
                name.as_mut_ptr().cast(),
                &mut name_size,
            )
        };
        if state == THREAD_LIVE || state == THREAD_ENDED {
            found.push(ProgramThread {
                raw,
                serial,
                native_id,
                name: String::from_utf8_lossy(&name[..name_size.min(NAME_BYTES)]).into_owned(),
                ended: state == THREAD_ENDED,
            });
        }
        // SAFETY: `raw` is a thread of the list.
        raw = unsafe { mm_next_thread(raw) };
    }
    found
}

/// What a counter has added up to since the process began.
pub struct CounterTotal {
    pub descriptor: &'static Descriptor,
    pub integers: i64,
    pub floats: f64,
}

impl CounterTotal {
    /// The descriptor as records name it.
    pub fn address(&self) -> u64 {
        std::ptr::from_ref(self.descriptor) as u64
    }
}

pub fn counter_totals() -> Vec<CounterTotal> {
    let mut totals = Vec::new();
    // SAFETY: the list only grows, at its head, by release stores; elements are never freed.
    let mut raw = unsafe { mm_first_sum() };
    // SAFETY: as above.
    while let Some(sum) = unsafe { raw.as_ref() } {
        totals.push(CounterTotal {
            // SAFETY: descriptors are immortal, and a sum has one before it enters the list.
            descriptor: unsafe { &*sum.descriptor.cast::<Descriptor>() },
            integers: sum.integers.load(Ordering::Relaxed) as i64,
            floats: f64::from_bits(sum.floats.load(Ordering::Relaxed)),
        });
        raw = sum.next;
    }
    totals
}

/// For the first lines of a thread of ours.
pub fn block_signals() {
    // SAFETY: changes the signal mask of the calling thread only.
    unsafe { mm_block_signals() }
}

/// Has crashes reported. With the GIL; gives the calling thread a stack for its signal handlers if it has none.
pub fn catch_fatal_signals() {
    // SAFETY: the GIL serialises this and `leave_fatal_signals`.
    unsafe { mm_catch_fatal_signals() }
}

pub fn leave_fatal_signals() {
    // SAFETY: as above.
    unsafe { mm_leave_fatal_signals() }
}

/// Has the rest sent before the signal ends the process. Unless a handler may be replaced, only instead of the default.
pub fn catch_termination(signal: c_int, replace_handler: bool) -> bool {
    // SAFETY: installs a handler that is safe in any state of the program.
    unsafe { mm_catch_termination(signal, c_int::from(replace_handler)) != 0 }
}

/// Has the rest sent, then ends the process by this signal.
pub fn die_by(signal: c_int) {
    // SAFETY: ends the process.
    unsafe { mm_die_by(signal) }
}

/// Begins a session, whose buffers are to be in files or not. Needs the GIL.
pub fn begin_buffers(in_files: bool) {
    // SAFETY: the caller holds the GIL, which serialises the producers' side.
    unsafe { mm_buffers_begin(c_int::from(in_files)) }
}

/// Has the session's folder made now rather than with the first event. Needs the GIL.
pub fn want_folder() {
    // SAFETY: as above.
    unsafe { mm_buffers_want_folder() }
}

/// Blocks of this session that are in private memory.
pub fn blocks_outside_file() -> u64 {
    // SAFETY: reads an atomic counter.
    unsafe { mm_blocks_outside_file() }
}

/// New buffers are made there. Needs the GIL. False: they can't be.
pub fn open_pages(folder: &File) -> bool {
    // SAFETY: the descriptor is open, and stays so until `close_pages`.
    unsafe { mm_pages_open(folder.as_raw_fd()) == 0 }
}

pub fn close_pages(folder: &File) {
    // SAFETY: only forgets the descriptor.
    unsafe { mm_pages_close(folder.as_raw_fd()) }
}

/// `enum mm_held`.
pub const HELD_LOCK: c_int = 0;
pub const HELD_JOURNAL: c_int = 1;
pub const HELD_FOLDER: c_int = 2;
pub const HELD_RECOVERY: c_int = 3;

/// A forked child is to close this file: a lock is held as long as anybody has its file open.
pub fn hold(place: c_int, file: &File) {
    // SAFETY: the descriptor stays open until `let_go`.
    unsafe { mm_hold(place, file.as_raw_fd()) }
}

pub fn let_go(place: c_int, file: &File) {
    // SAFETY: only forgets the descriptor.
    unsafe { mm_let_go(place, file.as_raw_fd()) }
}

/// For whoever finds our buffers: how ticks went.
pub fn note_clock((ticks, nanoseconds): (u64, u64)) {
    // SAFETY: only the collector calls this.
    unsafe { mm_note_clock(ticks, nanoseconds) }
}

pub fn stderr_is_terminal() -> bool {
    // SAFETY: asks about a file descriptor only.
    unsafe { mm_stderr_is_terminal() != 0 }
}

/// Never waits. False: not all was taken.
pub fn write_stderr(text: &[u8]) -> bool {
    // SAFETY: the pointer and the length are those of a slice.
    unsafe { mm_write_stderr(text.as_ptr().cast(), text.len()) != 0 }
}
