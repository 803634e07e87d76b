//! Requests that are under way, and how long those took that ended.

use std::time::{Duration, Instant};

use super::item::Item;
use super::subject::Subject;

/// More than are made between two looks: what nobody looks at must not pile up.
const MOST_REQUESTS: usize = 1024;

/// A request of the uploader that was answered, or not.
#[derive(Clone, Copy)]
pub struct Request {
    pub took: Duration,
    pub ended: Instant,
}

/// A request that nobody has answered yet.
pub struct UnderWay {
    pub serial: u64,
    pub subject: Subject,
    since: Instant,
}

#[derive(Default)]
pub struct Requests {
    under_way: Vec<UnderWay>,
    ended: Vec<Request>,
}

impl Requests {
    pub fn begin(&mut self, item: &Item, now: Instant) {
        self.under_way.push(UnderWay {
            serial: item.serial,
            subject: item.subject.clone(),
            since: now,
        });
    }

    /// Nobody tries to send the item any more; gives when that began.
    pub fn give_up(&mut self, item: &Item) -> Option<Instant> {
        let index = self
            .under_way
            .iter()
            .position(|request| request.serial == item.serial)?;
        Some(self.under_way.swap_remove(index).since)
    }

    /// The same, of a request that the server or the network has answered.
    pub fn end(&mut self, item: &Item, now: Instant) {
        if let Some(since) = self.give_up(item) {
            if self.ended.len() < MOST_REQUESTS {
                let took = now - since;
                self.ended.push(Request { took, ended: now });
            }
        }
    }

    pub fn under_way(&self) -> &[UnderWay] {
        &self.under_way
    }

    pub fn take_under_way(&mut self) -> Vec<UnderWay> {
        std::mem::take(&mut self.under_way)
    }

    /// Those that ended since the last look.
    pub fn take_ended(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.ended)
    }
}
