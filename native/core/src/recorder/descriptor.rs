//! Descriptors: what all events of one call site, metric or span have in common. Made once, interned, never freed.
//!
//! Callers make them under the GIL, the collector a few of its own; otherwise it only follows the addresses that it finds in
//! records.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "python")]
use super::spool::journal;
use crate::message::template::Template;

/// More would be a program that makes names of its data: what is beyond shares a descriptor or is refused.
const MAX_DESCRIPTORS: usize = 65_536;

/// Records keep the event's kind in the four low bits of a descriptor's address.
#[repr(align(16))]
pub struct Descriptor {
    /// Dense: 0, 1, 2 …
    pub index: usize,
    pub target: &'static str,
    pub file: &'static str,
    pub line: u32,
    pub description: Description,
}

pub enum Description {
    Log {
        level: u32,
        template: Template<'static>,
    },
    Metric {
        name: &'static str,
        unit: &'static str,
        properties: Vec<(&'static str, &'static str)>,
    },
    Span {
        name: &'static str,
    },
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: u8,
    level_or_line: (u32, u32),
    texts: Vec<&'static str>,
}

#[derive(Default)]
struct Registry {
    texts: HashMap<&'static str, &'static str>,
    descriptors: HashMap<Key, &'static Descriptor>,
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
        kind: u8,
        (target, file, line): (&str, &str, u32),
        level: u32,
        own_texts: &[&str],
        describe: impl FnOnce(&[&'static str]) -> Description,
    ) -> Option<&'static Descriptor> {
        let full = self.descriptors.len() >= MAX_DESCRIPTORS;
        if full && !self.texts.contains_key(own_texts[0]) {
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
            return None;
        }
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

/// A log site. The template is as the program wrote it.
pub fn log_descriptor(level: u32, place: (&str, &str, u32), template: &str) -> Option<&'static Descriptor> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.intern(0, place, level, &[template], |texts| Description::Log {
        level,
        template: Template::parse(texts[0]),
    })
}

/// A metric. The same name, unit, target and properties declared at another line is the same metric.
pub fn metric_descriptor(
    place: (&str, &str, u32),
    name: &str,
    unit: &str,
    properties: &[(&str, &str)],
) -> Option<&'static Descriptor> {
    let mut own_texts = vec![name, unit];
    own_texts.extend(properties.iter().flat_map(|(name, value)| [name, value]));
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.intern(1, place, 0, &own_texts, |texts| Description::Metric {
        name: texts[0],
        unit: texts[1],
        properties: texts[2..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
    })
}

pub fn span_descriptor(place: (&str, &str, u32), name: &str) -> Option<&'static Descriptor> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.intern(2, place, 0, &[name], |texts| Description::Span { name: texts[0] })
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
    let descriptor = log_descriptor(level, (&target, &file, line), &template);
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
    address(metric_descriptor((&target, &file, line), &name, &unit, &pairs))
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
