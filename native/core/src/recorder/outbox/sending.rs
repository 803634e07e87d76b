//! The uploader's threads: what each is to do next, what came of it, and what is left when the last one ends.

use std::sync::atomic::Ordering;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::item::{Item, Outcome};
use super::queue::NO_SERIAL;
use super::subject::Subject;
use super::Outbox;
use crate::recorder::losses::Reason;
use crate::recorder::pacing::delay;

/// What a thread of the uploader is to do.
pub enum Task {
    Send(Item),
    /// Nothing came for as long as the thread wanted to wait.
    Idle,
    /// What is left is lost.
    End,
}

impl Outbox {
    /// The next item that may be tried, for a thread that waits for one as long as `patience`, if that is given.
    pub fn take(&self, patience: Option<Duration>) -> Task {
        let give_up = patience.map(|patience| Instant::now() + patience);
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let stop_at = state.pacing.stop_at;
            if stop_at.is_some() && (state.pacing.is_over(now) || state.queue.is_empty()) {
                return Task::End;
            }
            let is_away = state.pacing.is_away();
            let paused = state.pacing.pause(now);
            // One request finds out whether the server is back.
            let probing = is_away && !state.requests.under_way().is_empty();
            let wake = if self.credentials.pass().is_none() {
                None
            } else if paused.is_some() || probing {
                paused
            } else {
                match state.queue.choose(now, is_away) {
                    Ok(place) => {
                        if let Some(mut item) = state.queue.take(place) {
                            state.requests.begin(&item, now);
                            let Some(stored) = item.stored.as_ref().filter(|_| item.body.is_empty()) else {
                                return Task::Send(item);
                            };
                            drop(state);
                            let read = stored.read();
                            state = self.lock();
                            match read {
                                Ok(body) => {
                                    state.queue.memory += body.len();
                                    item.body = body;
                                    return Task::Send(item);
                                }
                                Err(error) => {
                                    state.requests.give_up(&item);
                                    state.drop_for_good(item, Reason::GivenUp, format!("spool: {error}"), now);
                                    self.unlock(state);
                                    state = self.lock();
                                }
                            }
                            continue;
                        }
                        None
                    }
                    Err(wake) => wake,
                }
            };
            let wake = [wake, stop_at, give_up].into_iter().flatten().min();
            if give_up.is_some_and(|instant| instant <= now) {
                return Task::Idle;
            }
            let patience = wake.map_or(Duration::from_secs(3600), |wake| wake.saturating_duration_since(now));
            state.waiting += 1;
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting -= 1;
        }
    }

    pub fn settle(&self, mut item: Item, outcome: Outcome) {
        let mut state = self.lock();
        let now = Instant::now();
        let mut done = None;
        state.requests.end(&item, now);
        match outcome {
            Outcome::Sent { bytes } => {
                state.pacing.took();
                state.has_sent = true;
                state.queue.discount(&item);
                done = item.stored.clone();
                if let Some(announced) = item.subject.announces() {
                    state.queue.settle(announced);
                }
                state.delivery.sent_requests += 1;
                state.delivery.sent_bytes += bytes as u64;
                match &item.remains {
                    Some(remains) => {
                        remains.sent_events.fetch_add(item.subject.events(), Ordering::AcqRel);
                    }
                    None => state.delivery.sent_events += item.subject.events(),
                }
            }
            Outcome::Refused(error) => {
                state.pacing.answered();
                state.drop_for_good(item, Reason::Refused, error, now);
            }
            Outcome::Failed(error) => {
                state.pacing.answered();
                item.failures += 1;
                if item.failures > item.subject.retries() {
                    state.drop_for_good(item, Reason::GivenUp, error, now);
                } else {
                    item.not_before = Some(now + delay(item.failures));
                    state.put_back(item, Some(error));
                }
            }
            Outcome::NoPass(error) => {
                if let Some(error) = &error {
                    state.news.add(error);
                }
                state.put_back(item, error);
            }
            Outcome::Away(error, patience) => {
                if state.pacing.was_away(now, patience) {
                    state.news.add(&error);
                }
                // The server takes others and not this one: it fails at this one.
                if item.absences > 0 && state.delivery.sent_requests > item.sent_before {
                    item.failures += 1;
                }
                item.absences += 1;
                item.sent_before = state.delivery.sent_requests;
                if item.failures > item.subject.retries() {
                    state.drop_for_good(item, Reason::GivenUp, error, now);
                } else {
                    state.put_back(item, Some(error));
                }
            }
        }
        // Bodies that were only in the spool are read to be sent: those that come back may be more than fits.
        let surplus = state.queue.memory.saturating_sub(self.limit_bytes);
        state.queue.unload(surplus);
        self.unlock(state);
        if let Some(stored) = done {
            stored.settle(false);
        }
    }

    /// A thread of the uploader begins.
    pub fn enter(&self) {
        self.lock().threads += 1;
    }

    /// Another one begins, to be there for the next item, unless there are that many or one waits already.
    pub fn enter_if_none_waits(&self, limit: usize) -> bool {
        let mut state = self.lock();
        let wanted = state.threads < limit && state.waiting == 0;
        state.threads += usize::from(wanted);
        wanted
    }

    /// A thread of the uploader ends. With the last one, what is left is lost.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return;
        }
        state.finished = true;
        let under_way = state.requests.take_under_way().into_iter(); // of a thread that panicked
        let under_way = under_way
            .filter(|request| request.serial != NO_SERIAL)
            .map(|request| (request.subject, false));
        let own = state.queue.take_own();
        let left: Vec<(Subject, bool)> = own
            .map(|item| (item.subject, item.stored.is_some()))
            .chain(under_way)
            .collect();
        state.abandoned = !left.is_empty();
        for (subject, stored) in left {
            if stored {
                state.keeps = true;
            } else {
                state.lose_own(&subject, Reason::Exit);
            }
        }
        let keeps = state.keeps;
        drop(state);
        self.changed.notify_all();
        if let Some(spool) = &self.spool {
            spool.leave(keeps);
        }
    }
}
