//! What processes that died left in the spool: sent behind everything of our own, and counted by itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::item::{Item, Remains};
use super::subject::Subject;
use super::Outbox;
use crate::recorder::spool::segments::Stored;

impl Outbox {
    /// Takes what a dead process left: its announcements, then its blocks. It is sent when nothing else is.
    pub fn push_remains(
        &self,
        announcements: Vec<(Subject, Vec<u8>)>,
        blocks: Vec<(Subject, Stored)>,
        of: &Arc<Remains>,
    ) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        let items = announcements
            .into_iter()
            .map(|(subject, body)| Item::new(subject, body, None));
        let items = items.chain(blocks.into_iter().map(|(subject, stored)| {
            let mut item = Item::new(subject, Vec::new(), None);
            item.size = stored.length();
            item.stored = Some(stored);
            item
        }));
        for mut item in items {
            of.waiting.fetch_add(1, Ordering::AcqRel);
            item.remains = Some(Arc::clone(of));
            state.queue.put(item);
        }
        self.unlock(state);
    }

    /// Waits until all of it is settled. False: the end came first.
    pub fn wait_remains(&self, of: &Remains) -> bool {
        let mut state = self.lock();
        while of.waiting.load(Ordering::Acquire) > 0 {
            if state.finished || state.pacing.stop_at.is_some() {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Waits until the server has taken something. False: the end came first.
    pub fn wait_sent(&self) -> bool {
        let mut state = self.lock();
        while !state.has_sent {
            if state.finished || state.pacing.stop_at.is_some() {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}
