//! Copies of the blocks that are cut while somebody captures.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block with all that is needed to read it: the bodies of three requests.
pub struct CapturedBlock {
    pub process: Vec<u8>,
    pub stream: Vec<u8>,
    pub block: Vec<u8>,
}

struct Capture {
    serial: u64,
    blocks: Vec<Arc<CapturedBlock>>,
}

#[derive(Default)]
struct State {
    last_serial: u64,
    open: Vec<Capture>,
}

/// The captures of this process, shared by the collector and the threads that capture.
#[derive(Default)]
pub struct Captures {
    state: Mutex<State>,
    open: AtomicUsize,
}

impl Captures {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether blocks are wanted.
    pub fn any_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Begins one, and gives its number.
    pub fn open(&self) -> u64 {
        let mut state = self.lock();
        state.last_serial += 1;
        let serial = state.last_serial;
        state.open.push(Capture {
            serial,
            blocks: Vec::new(),
        });
        self.open.store(state.open.len(), Ordering::Release);
        serial
    }

    /// Gives a block to all captures that are open now.
    pub fn keep(&self, block: CapturedBlock) {
        let block = Arc::new(block);
        for capture in &mut self.lock().open {
            capture.blocks.push(Arc::clone(&block));
        }
    }

    /// What came since the last time. None: there is no such capture.
    pub fn take(&self, serial: u64) -> Option<Vec<Arc<CapturedBlock>>> {
        let mut state = self.lock();
        let capture = state.open.iter_mut().find(|capture| capture.serial == serial)?;
        Some(std::mem::take(&mut capture.blocks))
    }

    pub fn close(&self, serial: u64) {
        let mut state = self.lock();
        state.open.retain(|capture| capture.serial != serial);
        self.open.store(state.open.len(), Ordering::Release);
    }
}

/// Locked only by threads that hold the GIL, and never while they give it up: free in a forked child.
static CURRENT: Mutex<Option<Arc<Captures>>> = Mutex::new(None);

/// The captures of this process.
pub fn captures() -> Arc<Captures> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(current.get_or_insert_default())
}

/// In a forked child: the parent's captures are the parent's. Their lock may be held for ever, so they are never dropped.
pub fn leave_to_parent() {
    let inherited = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::mem::forget(inherited);
}
