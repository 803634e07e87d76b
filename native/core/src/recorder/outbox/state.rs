//! All that the outbox's lock guards.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::delivery::{Delivery, News};
use super::item::Item;
use super::queue::Queue;
use super::refusals::Refusals;
use super::requests::Requests;
use super::subject::Subject;
use crate::recorder::losses::Reason;
use crate::recorder::pacing::Pacing;
use crate::recorder::spool::segments::Stored;

#[derive(Default)]
pub struct State {
    pub queue: Queue,
    pub requests: Requests,
    pub refusals: Refusals,
    pub pacing: Pacing,
    pub delivery: Delivery,
    pub news: News,
    pub dropped_blocks: u64,
    /// Blocks that were dropped, whose room in the spool is to be freed.
    pub freed: Vec<Stored>,
    /// At the end, blocks were left in the spool.
    pub keeps: bool,
    pub has_sent: bool,
    /// Threads of the uploader, and how many of them wait for an item.
    pub threads: usize,
    pub waiting: usize,
    pub finished: bool,
    /// Something was left at the end, if only an announcement.
    pub abandoned: bool,
}

impl State {
    /// Drops the newest block of the highest rank, if that is not below `rank`, of those in the spool or of the others.
    /// False: there is none.
    pub fn drop_one(&mut self, rank: usize, stored: bool) -> bool {
        let Some(mut item) = self.queue.take_least(rank, stored) else {
            return false;
        };
        self.lose(&item, Reason::Queue);
        self.freed.extend(item.stored.take());
        true
    }

    fn lose(&mut self, item: &Item, reason: Reason) {
        match &item.remains {
            Some(remains) => {
                remains.lost_events.fetch_add(item.subject.events(), Ordering::AcqRel);
            }
            None => self.lose_own(&item.subject, reason),
        }
    }

    pub fn lose_own(&mut self, subject: &Subject, reason: Reason) {
        if let Subject::Block { kind, events, .. } = subject {
            self.dropped_blocks += 1;
            self.delivery.losses.count(reason, *kind, *events);
        }
    }

    /// The announcement was refused, or given up: what needs it is lost until it is announced again.
    fn refuse(&mut self, item: Item, reason: Reason, now: Instant) {
        let Some(announced) = item.subject.announces().cloned() else {
            return;
        };
        self.queue.settle(&announced);
        for other in self.queue.take_needing(&announced) {
            self.lose(&other, reason);
            self.freed.extend(other.stored.clone());
            if let Some(id) = other.subject.announces().cloned() {
                self.queue.settle(&id);
                self.refusals.add(id, other, now);
            }
        }
        self.refusals.add(announced, item, now);
    }

    /// Has announcements that were refused long ago told again, for the sake of a block. False: it is too early.
    pub fn announce_again(&mut self, subject: &Subject, now: Instant) -> bool {
        let Some(needed) = self.refusals.take_needed(subject, now) else {
            return false;
        };
        for mut item in needed {
            item.failures = 0;
            if let Some(remains) = &item.remains {
                remains.waiting.fetch_add(1, Ordering::AcqRel);
            }
            item.not_before = None;
            self.queue.put(item);
        }
        true
    }

    /// Puts an item back in its place, to be tried again.
    pub fn put_back(&mut self, item: Item, error: Option<String>) {
        if error.is_some() {
            self.delivery.last_error = error;
        }
        self.queue.put_back(item);
    }

    pub fn drop_for_good(&mut self, item: Item, reason: Reason, error: String, now: Instant) {
        self.news.add(&error);
        self.delivery.last_error = Some(error);
        self.queue.discount(&item);
        self.lose(&item, reason);
        self.freed.extend(item.stored.clone());
        self.refuse(item, reason, now);
    }
}
