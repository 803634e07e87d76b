//! Items that wait, by importance and then by age, and what they take of memory and of the spool.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::item::{Announcement, Item, OWN_RANKS};

const RANKS: usize = OWN_RANKS + 1;
/// The serial of what other processes left: nobody waits for it.
pub const NO_SERIAL: u64 = u64::MAX;

/// Where an item stands.
#[derive(Clone, Copy)]
pub struct Place {
    rank: usize,
    index: usize,
}

#[derive(Default)]
pub struct Queue {
    /// By rank, each in the order of serials.
    ranks: [VecDeque<Item>; RANKS],
    /// Announcements that wait or are under way.
    unsettled: HashSet<Arc<str>>,
    /// Bytes of bodies in memory, of blocks in the spool, and of all of our own. What is under way counts.
    pub memory: usize,
    pub stored: u64,
    pub bytes: usize,
    pub next_serial: u64,
}

impl Queue {
    pub fn put(&mut self, mut item: Item) {
        if item.remains.is_some() {
            item.serial = NO_SERIAL;
        } else {
            item.serial = self.next_serial;
            self.next_serial += 1;
            self.bytes += item.size;
        }
        self.memory += item.body.len();
        self.unsettled.extend(item.subject.announces().cloned());
        self.ranks[item.rank()].push_back(item);
    }

    /// Puts an item back in its place, to be tried again.
    pub fn put_back(&mut self, item: Item) {
        let queue = &mut self.ranks[item.rank()];
        let place = queue.partition_point(|other| other.serial < item.serial);
        queue.insert(place, item);
    }

    /// Takes an item out to be tried.
    pub fn take(&mut self, place: Place) -> Option<Item> {
        self.ranks[place.rank].remove(place.index)
    }

    /// The item has left the queue for good.
    pub fn discount(&mut self, item: &Item) {
        self.memory -= item.body.len();
        match &item.remains {
            Some(remains) => {
                remains.waiting.fetch_sub(1, Ordering::AcqRel);
            }
            None => {
                self.bytes -= item.size;
                self.stored -= item.stored.as_ref().map_or(0, |stored| stored.length() as u64);
            }
        }
    }

    /// The server knows now what this announces, or never will.
    pub fn settle(&mut self, announced: &str) {
        self.unsettled.remove(announced);
    }

    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.ranks.iter().flatten()
    }

    pub fn items_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.ranks.iter_mut().flatten()
    }

    pub fn len(&self) -> usize {
        self.ranks.iter().map(VecDeque::len).sum()
    }

    /// The lowest serial of each rank.
    pub fn oldest(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranks.iter().filter_map(VecDeque::front).map(|item| item.serial)
    }

    /// Whether nothing of our own waits.
    pub fn is_empty(&self) -> bool {
        self.ranks[..OWN_RANKS].iter().all(VecDeque::is_empty)
    }

    /// Empties it; gives what was our own.
    pub fn take_own(&mut self) -> impl Iterator<Item = Item> {
        self.bytes = 0;
        std::mem::take(&mut self.ranks).into_iter().take(OWN_RANKS).flatten()
    }

    /// Takes bodies out of memory that are in the spool too, the least important first, until that many bytes are free.
    pub fn unload(&mut self, wanted: usize) -> bool {
        let mut freed = 0;
        for item in self.ranks.iter_mut().rev().flat_map(|queue| queue.iter_mut().rev()) {
            if freed >= wanted {
                break;
            }
            if item.stored.is_some() && !item.body.is_empty() {
                freed += item.body.len();
                item.body = Vec::new();
            }
        }
        self.memory -= freed;
        freed >= wanted
    }

    /// Takes out the newest block of the highest rank, if that is not below `rank`, of those in the spool or of the
    /// others; and the announcement that nothing else needs.
    pub fn take_least(&mut self, rank: usize, stored: bool) -> Option<Item> {
        let fits = |item: &Item| item.stored.is_some() == stored;
        let item = (rank..OWN_RANKS).rev().find_map(|rank| {
            let index = self.ranks[rank].iter().rposition(fits)?;
            self.ranks[rank].remove(index)
        })?;
        self.discount(&item);
        if let Some(announcement) = &item.announcement {
            self.withdraw(announcement);
        }
        Some(item)
    }

    /// Takes an announcement that waits out again when nothing is left that needs it, lest these pile up.
    fn withdraw(&mut self, announcement: &Announcement) {
        let Some(announced) = announcement.subject.announces() else {
            return;
        };
        if self.items().any(|item| item.subject.needs().any(|id| id == announced)) {
            return;
        }
        let is_it = |item: &Item| item.subject.announces() == Some(announced);
        if let Some(index) = self.ranks[0].iter().position(is_it) {
            if let Some(item) = self.ranks[0].remove(index) {
                self.discount(&item);
            }
            self.unsettled.remove(announced);
            announcement.put.store(false, Ordering::Relaxed);
        }
    }

    /// Takes out for good all that needs this announcement.
    pub fn take_needing(&mut self, announced: &Arc<str>) -> Vec<Item> {
        let mut needing = Vec::new();
        for queue in &mut self.ranks {
            let (with, without): (VecDeque<Item>, VecDeque<Item>) = std::mem::take(queue)
                .into_iter()
                .partition(|other| other.subject.needs().any(|id| id == announced));
            *queue = without;
            needing.extend(with);
        }
        for item in &needing {
            self.discount(item);
        }
        needing
    }

    /// The item to try next, or when to look again. With a server that `is_away` each item has its turn.
    pub fn choose(&self, now: Instant, is_away: bool) -> Result<Place, Option<Instant>> {
        let mut wake = None;
        let mut chosen: Option<(Place, &Item)> = None;
        for (rank, queue) in self.ranks.iter().enumerate() {
            for (index, item) in queue.iter().enumerate() {
                if item.subject.needs().any(|announced| self.unsettled.contains(announced)) {
                    continue;
                }
                if let Some(instant) = item.not_before.filter(|&instant| instant > now) {
                    wake = Some(wake.map_or(instant, |earlier: Instant| earlier.min(instant)));
                    continue;
                }
                let place = Place { rank, index };
                if !is_away {
                    return Ok(place);
                }
                // Whether the server is there is asked with each item in turn, so that one that it can't bear holds up
                // no other.
                if chosen.is_none_or(|(_, best)| item.absences < best.absences) {
                    chosen = Some((place, item));
                }
            }
        }
        chosen.map(|(place, _)| place).ok_or(wake)
    }
}
