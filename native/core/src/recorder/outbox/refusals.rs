//! Announcements that the server refused, or that were given up: what needs them is lost until they are told again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::item::Item;
use super::subject::Subject;

/// How long what a refused announcement announces is counted as refused without asking, until it is announced again.
const REFUSAL_HOLDS: Duration = Duration::from_secs(60);

struct Refusal {
    item: Item,
    since: Instant,
}

#[derive(Default)]
pub struct Refusals {
    by_announced: HashMap<Arc<str>, Refusal>,
}

impl Refusals {
    pub fn add(&mut self, announced: Arc<str>, item: Item, now: Instant) {
        self.by_announced.insert(announced, Refusal { item, since: now });
    }

    /// The refused announcements that this needs, to be told again; none is kept. None: it is too early.
    pub fn take_needed(&mut self, subject: &Subject, now: Instant) -> Option<Vec<Item>> {
        let refused = |id: &&Arc<str>| self.by_announced.contains_key(*id);
        let needed: Vec<Arc<str>> = subject.needs().filter(refused).cloned().collect();
        let early = |id: &Arc<str>| self.by_announced[id].since + REFUSAL_HOLDS > now;
        if needed.iter().any(early) {
            return None;
        }
        let taken = needed.iter().filter_map(|id| self.by_announced.remove(id));
        Some(taken.map(|refusal| refusal.item).collect())
    }
}
