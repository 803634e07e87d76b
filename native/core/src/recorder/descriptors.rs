//! The descriptors of this process, each made once.
//!
//! Callers make them under the GIL, the collector a few of its own; otherwise it only follows the addresses that it finds in
//! records.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::descriptor::{Description, Descriptor};
use super::limits::{self, Limit};
#[cfg(feature = "python")]
use super::spool::journal;
use crate::message::template::Template;

/// What a program may make of each kind, as a count and in bytes of texts (which the journal repeats). More would be names
/// made of data: what is beyond shares a descriptor.
const MOST: [(Limit, usize); 3] = [
    (Limit::LogSites, 65_536),
    (Limit::Metrics, 16_384),
    (Limit::Spans, 65_536),
];
const MOST_BYTES: usize = 32 << 20;

/// Who wants a description. The recorder's own are few, and must be there to tell that there are too many.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Program,
    Recorder,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: usize,
    level_or_line: (u32, u32),
    texts: Vec<&'static str>,
}

#[derive(Default)]
struct Registry {
    texts: HashMap<&'static str, &'static str>,
    descriptors: HashMap<Key, &'static Descriptor>,
    /// Count and bytes by kind.
    made: [(usize, usize); MOST.len()],
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

impl Registry {
    fn text(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.texts.get(text) {
            return known;
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        self.texts.insert(kept, kept);
        kept
    }

    fn intern(
        &mut self,
        (whose, kind): (For, usize),
        (target, file, line): (&str, &str, u32),
        level: u32,
        own_texts: &[&str],
        describe: impl FnOnce(&[&'static str]) -> Description,
    ) -> Option<&'static Descriptor> {
        let (limit, most) = MOST[kind];
        let (count, bytes) = self.made[kind];
        let full = whose == For::Program && (count >= most || bytes >= MOST_BYTES);
        if full && !self.texts.contains_key(own_texts[0]) {
            limits::reach(limit);
            return None; // without keeping a text that nobody will use
        }
        let mut texts = vec![self.text(target), self.text(file)];
        for text in own_texts {
            texts.push(self.text(text));
        }
        let key = Key {
            kind,
            level_or_line: (level, line),
            texts,
        };
        if let Some(known) = self.descriptors.get(&key) {
            return Some(known);
        }
        if full {
            limits::reach(limit);
            return None;
        }
        let own_bytes: usize = key.texts.iter().map(|text| text.len()).sum();
        self.made[kind] = (count + 1, bytes + own_bytes);
        let descriptor: &'static Descriptor = Box::leak(Box::new(Descriptor {
            index: self.descriptors.len(),
            target: key.texts[0],
            file: key.texts[1],
            line,
            description: describe(&key.texts[2..]),
        }));
        self.descriptors.insert(key, descriptor);
        #[cfg(feature = "python")]
        journal::append(&journal::descriptor_entry(descriptor));
        Some(descriptor)
    }
}

/// The registry's lock during a fork: the child must not find it held by a thread that it does not have.
struct AtFork(UnsafeCell<Option<MutexGuard<'static, Registry>>>);

// SAFETY: only touched by the thread that holds the registry's lock.
unsafe impl Sync for AtFork {}

static AT_FORK: AtFork = AtFork(UnsafeCell::new(None));

/// Called by csrc/buffer.c before a fork.
#[no_mangle]
extern "C" fn mm_descriptors_hold() {
    let registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: we hold the lock.
    unsafe { *AT_FORK.0.get() = Some(registry) };
}

/// Called by csrc/buffer.c after it, by the same thread: in the parent, and in the child.
#[no_mangle]
extern "C" fn mm_descriptors_let_go() {
    // SAFETY: this thread holds the lock until the value is dropped, which is the last that it does with the cell.
    let registry = unsafe { (*AT_FORK.0.get()).take() };
    drop(registry);
}

/// Gives all descriptors so far; no other is made before it returns.
pub fn with_all<R>(take: impl FnOnce(&mut dyn Iterator<Item = &'static Descriptor>) -> R) -> R {
    let registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    take(&mut registry.descriptors.values().copied())
}

fn describe_log(whose: For, place: (&str, &str, u32), level: u32, template: &str) -> Option<&'static Descriptor> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.intern((whose, 0), place, level, &[template], |texts| Description::Log {
        level,
        template: Template::parse(texts[0]),
    })
}

fn describe_metric(
    whose: For,
    place: (&str, &str, u32),
    (name, unit): (&str, &str),
    properties: &[(&str, &str)],
) -> Option<&'static Descriptor> {
    let mut own_texts = vec![name, unit];
    own_texts.extend(properties.iter().flat_map(|(name, value)| [name, value]));
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.intern((whose, 1), place, 0, &own_texts, |texts| Description::Metric {
        name: texts[0],
        unit: texts[1],
        properties: texts[2..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
    })
}

/// A log site of the recorder. The template is as the program wrote it.
pub fn log_descriptor(level: u32, place: (&str, &str, u32), template: &str) -> Option<&'static Descriptor> {
    describe_log(For::Recorder, place, level, template)
}

/// A metric of the recorder. The same name, unit, target and properties declared at another line is the same metric.
pub fn metric_descriptor(
    place: (&str, &str, u32),
    name: &str,
    unit: &str,
    properties: &[(&str, &str)],
) -> Option<&'static Descriptor> {
    describe_metric(For::Recorder, place, (name, unit), properties)
}

fn span_descriptor(place: (&str, &str, u32), name: &str) -> Option<&'static Descriptor> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.intern((For::Program, 2), place, 0, &[name], |texts| Description::Span {
        name: texts[0],
    })
}

/// `mm_text`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RawText {
    data: *const c_char,
    size: usize,
}

impl RawText {
    /// # Safety
    /// `data` must point to `size` readable bytes that live as long as the result is used.
    unsafe fn as_str<'a>(self) -> std::borrow::Cow<'a, str> {
        if self.size == 0 {
            return "".into();
        }
        // SAFETY: promised by the caller.
        String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(self.data.cast::<u8>(), self.size) })
    }
}

fn address(descriptor: Option<&'static Descriptor>) -> *const Descriptor {
    descriptor.map_or(std::ptr::null(), std::ptr::from_ref)
}

/// See `mm_describe_log` in csrc/recorder.h.
///
/// # Safety
/// The texts must be readable, `conversions` writable for MM_MAX_VALUES bytes, `count` writable.
#[no_mangle]
unsafe extern "C" fn mm_describe_log(
    level: u32,
    line: u32,
    template: RawText,
    target: RawText,
    file: RawText,
    conversions: *mut c_char,
    count: *mut c_int,
) -> *const Descriptor {
    // SAFETY: promised by the caller.
    let (template, target, file) = unsafe { (template.as_str(), target.as_str(), file.as_str()) };
    let descriptor = describe_log(For::Program, (&target, &file, line), level, &template);
    let mut letters = None;
    if let Some(Description::Log { template, .. }) = descriptor.map(|descriptor| &descriptor.description) {
        letters = template.conversion_letters();
    }
    let written = letters.map_or(-1, |letters| {
        // SAFETY: a template has at most MM_MAX_VALUES conversions, and the caller has room for as many.
        unsafe { std::ptr::copy_nonoverlapping(letters.as_ptr().cast(), conversions, letters.len()) };
        letters.len() as c_int
    });
    // SAFETY: promised by the caller.
    unsafe { *count = written };
    address(descriptor)
}

/// See `mm_described_target` in csrc/recorder.h.
///
/// # Safety
/// `descriptor` must be one that was given to C.
#[no_mangle]
unsafe extern "C" fn mm_described_target(descriptor: *const Descriptor) -> RawText {
    // SAFETY: promised by the caller; descriptors are immortal.
    let target = unsafe { &*descriptor }.target;
    RawText {
        data: target.as_ptr().cast(),
        size: target.len(),
    }
}

/// See `mm_describe_metric` in csrc/recorder.h.
///
/// # Safety
/// The texts must be readable, `properties` must be an array of `property_texts` of them.
#[no_mangle]
unsafe extern "C" fn mm_describe_metric(
    name: RawText,
    unit: RawText,
    target: RawText,
    file: RawText,
    line: u32,
    properties: *const RawText,
    property_texts: usize,
) -> *const Descriptor {
    // SAFETY: promised by the caller.
    let (name, unit, target, file) = unsafe { (name.as_str(), unit.as_str(), target.as_str(), file.as_str()) };
    // SAFETY: promised by the caller (an array also when empty).
    let texts = unsafe { std::slice::from_raw_parts(properties, property_texts) };
    // SAFETY: promised by the caller.
    let texts: Vec<_> = texts.iter().map(|text| unsafe { text.as_str() }).collect();
    let pairs: Vec<(&str, &str)> = texts.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])).collect();
    let place = (&*target, &*file, line);
    address(describe_metric(For::Program, place, (&*name, &*unit), &pairs))
}

/// See `mm_describe_span` in csrc/recorder.h.
///
/// # Safety
/// The texts must be readable.
#[no_mangle]
unsafe extern "C" fn mm_describe_span(name: RawText, target: RawText, file: RawText, line: u32) -> *const Descriptor {
    // SAFETY: promised by the caller.
    let (name, target, file) = unsafe { (name.as_str(), target.as_str(), file.as_str()) };
    address(span_descriptor((&target, &file, line), &name))
}
