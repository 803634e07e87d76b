//! The bounded queue between the collector and the uploader's threads, and what became of its items.
//!
//! Several items may be under way at once. What needs an announcement is not given out before that is settled: a stream
//! waits for its process, a block for its stream. Sent first is what tells most for its size (announcements, logs,
//! measures, spans), and dropped first is what tells least.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::credentials::Credentials;
use super::layouts::StreamKind;
use super::losses::{Losses, Reason};
use super::spool::segments::{Kept, Stored};
use super::spool::SessionSpool;

/// The longest pause between two tries of a server that is away, or at a block that it fails at.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How often a server that is away is tried while the process waits to end.
const TRIES_AT_END: u32 = 3;
/// Times in a row that the server is away before that is worth telling: the fourth comes a second after the first.
const ABSENCES_TOLD: u32 = 4;
/// How many different troubles of a session are told.
const MOST_NEWS: usize = 8;
/// How long what a refused announcement announces is counted as refused without asking, until it is announced again.
const REFUSAL_HOLDS: Duration = Duration::from_secs(60);
/// Of this process's own items. Behind them comes what other processes left.
const OWN_RANKS: usize = 4;
const RANKS: usize = OWN_RANKS + 1;
/// The serial of what other processes left: nobody waits for it.
const NO_SERIAL: u64 = u64::MAX;

/// What an item is.
#[derive(Clone, Debug)]
pub enum Subject {
    Process {
        process_id: Arc<str>,
    },
    Stream {
        process_id: Arc<str>,
        stream_id: Arc<str>,
    },
    Block {
        process_id: Arc<str>,
        stream_id: Arc<str>,
        kind: StreamKind,
        events: u64,
    },
}

impl Subject {
    pub fn route(&self) -> &'static str {
        match self {
            Self::Process { .. } => "insert_process",
            Self::Stream { .. } => "insert_stream",
            Self::Block { .. } => "insert_block",
        }
    }

    /// What this announces.
    fn announces(&self) -> Option<&Arc<str>> {
        match self {
            Self::Process { process_id } => Some(process_id),
            Self::Stream { stream_id, .. } => Some(stream_id),
            Self::Block { .. } => None,
        }
    }

    /// The announcements without which this is of no use.
    fn needs(&self) -> impl Iterator<Item = &Arc<str>> {
        let (process_id, stream_id) = match self {
            Self::Process { .. } => (None, None),
            Self::Stream { process_id, .. } => (Some(process_id), None),
            Self::Block {
                process_id, stream_id, ..
            } => (Some(process_id), Some(stream_id)),
        };
        process_id.into_iter().chain(stream_id)
    }

    /// Its queue: the lower goes first.
    fn rank(&self) -> usize {
        match self {
            Self::Process { .. } | Self::Stream { .. } => 0,
            Self::Block { kind, .. } => match kind {
                StreamKind::Log => 1,
                StreamKind::Metrics => 2,
                StreamKind::Cpu => 3,
            },
        }
    }

    pub fn events(&self) -> u64 {
        match self {
            Self::Block { events, .. } => *events,
            _ => 0,
        }
    }

    /// How often the server may fail at it, beyond the first time.
    fn retries(&self) -> u32 {
        match self {
            Self::Process { .. } | Self::Stream { .. } => 10,
            Self::Block { kind, .. } => match kind {
                StreamKind::Log => 5,
                StreamKind::Metrics => 2,
                StreamKind::Cpu => 1,
            },
        }
    }
}

/// What the blocks of a stream need.
pub struct Announcement {
    subject: Subject,
    body: Vec<u8>,
    /// Whether the outbox has it, or had it until it was settled. Changed only under the outbox's lock.
    put: AtomicBool,
}

impl Announcement {
    pub fn new(subject: Subject, body: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            subject,
            body,
            put: AtomicBool::new(false),
        })
    }
}

/// A block as the collector cuts it.
pub struct Block {
    pub announcement: Arc<Announcement>,
    pub subject: Subject,
    pub body: Vec<u8>,
}

impl Block {
    pub fn kept(&self) -> Kept<'_> {
        let (stream_id, kind) = match &self.subject {
            Subject::Block { stream_id, kind, .. } => (&**stream_id, *kind),
            _ => ("", StreamKind::Cpu),
        };
        Kept {
            stream_id,
            kind,
            events: self.subject.events(),
            announcement: &self.announcement.body,
            body: &self.body,
        }
    }
}

/// What a process that died left, and what became of it.
#[derive(Default)]
pub struct Remains {
    pub waiting: AtomicU64,
    pub sent_events: AtomicU64,
    pub lost_events: AtomicU64,
}

/// A request to send.
pub struct Item {
    pub subject: Subject,
    /// Empty while it is only `stored`.
    pub body: Vec<u8>,
    /// Bytes of the body.
    size: usize,
    stored: Option<Stored>,
    remains: Option<Arc<Remains>>,
    /// Of a block: what announces its stream.
    announcement: Option<Arc<Announcement>>,
    /// How often the server failed at it.
    failures: u32,
    /// How often nobody answered.
    absences: u32,
    /// Requests that the server had taken when nobody answered this one.
    sent_before: u64,
    not_before: Option<Instant>,
    serial: u64,
}

impl Item {
    fn new(subject: Subject, body: Vec<u8>, announcement: Option<Arc<Announcement>>) -> Self {
        Self {
            subject,
            size: body.len(),
            body,
            stored: None,
            remains: None,
            announcement,
            failures: 0,
            absences: 0,
            sent_before: 0,
            not_before: None,
            serial: 0,
        }
    }

    fn rank(&self) -> usize {
        match self.remains {
            Some(_) => OWN_RANKS,
            None => self.subject.rank(),
        }
    }
}

/// What came of trying to send an item.
pub enum Outcome {
    Sent,
    /// The server will never take it.
    Refused(String),
    /// The server failed at this one.
    Failed(String),
    /// Nothing to be let in with, as the server said or as we know without asking: wait until there is.
    NoPass(Option<String>),
    /// The server is away or asks for patience, of this long if it said so.
    Away(String, Option<Duration>),
}

/// Figures for `micromegas.status()`.
#[derive(Clone, Default)]
pub struct Delivery {
    pub sent_requests: u64,
    pub sent_events: u64,
    pub sent_bytes: u64,
    pub losses: Losses,
    pub last_error: Option<String>,
    /// The encodings of blocks that the server reads, once it has said.
    pub server_formats: Option<Vec<String>>,
}

/// A request of the uploader that was answered, or not.
#[derive(Clone, Copy)]
pub struct Request {
    pub took: Duration,
    pub ended: Instant,
}

/// How the queue stands, and what became of requests since the last look.
pub struct Traffic {
    pub waiting: usize,
    pub bytes: usize,
    pub under_way: usize,
    /// Blocks, since the session began.
    pub dropped: u64,
    pub requests: Vec<Request>,
}

/// More than are made between two looks: what nobody looks at must not pile up.
const MOST_REQUESTS: usize = 1024;

struct UnderWay {
    serial: u64,
    subject: Subject,
    since: Instant,
}

/// An announcement that the server refused.
struct Refusal {
    item: Item,
    since: Instant,
}

#[derive(Default)]
struct State {
    /// By rank, each in the order of serials.
    queues: [VecDeque<Item>; RANKS],
    under_way: Vec<UnderWay>,
    requests: Vec<Request>,
    dropped_blocks: u64,
    /// Announcements that wait or are under way.
    unsettled: HashSet<Arc<str>>,
    /// Blocks that were dropped, whose room in the spool is to be freed.
    freed: Vec<Stored>,
    /// Bytes of bodies in memory, and of blocks in the spool.
    memory: usize,
    stored: u64,
    /// At the end, blocks were left in the spool.
    keeps: bool,
    has_sent: bool,
    refused: HashMap<Arc<str>, Refusal>,
    bytes: usize,
    next_serial: u64,
    delivery: Delivery,
    /// Troubles that were told or are to be told, and how many of them were.
    news: Vec<String>,
    news_told: usize,
    /// Times in a row that the server was away, and when it is tried again.
    absences: u32,
    tries_at_end: u32,
    pause_until: Option<Instant>,
    stop_at: Option<Instant>,
    /// Threads of the uploader, and how many of them wait for an item.
    threads: usize,
    waiting: usize,
    finished: bool,
    /// Something was left at the end, if only an announcement.
    abandoned: bool,
}

impl State {
    fn put(&mut self, mut item: Item) {
        if item.remains.is_some() {
            item.serial = NO_SERIAL;
        } else {
            item.serial = self.next_serial;
            self.next_serial += 1;
            self.bytes += item.size;
        }
        self.memory += item.body.len();
        self.unsettled.extend(item.subject.announces().cloned());
        self.queues[item.rank()].push_back(item);
    }

    /// The item has left the queue for good. `frees`: what it has in the spool is to give its room back at once.
    fn discount(&mut self, item: &Item) {
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

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.queues.iter().flatten()
    }

    /// Whether nothing of our own waits.
    fn is_empty(&self) -> bool {
        self.queues[..OWN_RANKS].iter().all(VecDeque::is_empty)
    }

    /// Takes bodies out of memory that are in the spool too, the least important first, until that many bytes are free.
    fn unload(&mut self, wanted: usize) -> bool {
        let mut freed = 0;
        for item in self.queues.iter_mut().rev().flat_map(|queue| queue.iter_mut().rev()) {
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

    /// Drops the newest block of the highest rank, if that is not below `rank`, of those in the spool or of the others.
    /// False: there is none.
    fn drop_one(&mut self, rank: usize, stored: bool) -> bool {
        let fits = |item: &Item| item.stored.is_some() == stored;
        let found = (rank..OWN_RANKS).rev().find_map(|rank| {
            let index = self.queues[rank].iter().rposition(fits)?;
            self.queues[rank].remove(index)
        });
        let Some(mut item) = found else {
            return false;
        };
        self.discount(&item);
        self.lose(&item, Reason::Queue);
        self.freed.extend(item.stored.take());
        if let Some(announcement) = item.announcement {
            self.withdraw(&announcement);
        }
        true
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
        if let Some(index) = self.queues[0].iter().position(is_it) {
            if let Some(item) = self.queues[0].remove(index) {
                self.discount(&item);
            }
            self.unsettled.remove(announced);
            announcement.put.store(false, Ordering::Relaxed);
        }
    }

    fn lose(&mut self, item: &Item, reason: Reason) {
        match &item.remains {
            Some(remains) => {
                remains.lost_events.fetch_add(item.subject.events(), Ordering::AcqRel);
            }
            None => self.lose_own(&item.subject, reason),
        }
    }

    fn lose_own(&mut self, subject: &Subject, reason: Reason) {
        if let Subject::Block { kind, events, .. } = subject {
            self.dropped_blocks += 1;
            self.delivery.losses.count(reason, *kind, *events);
        }
    }

    /// The item to try next (its queue and its place there), or when to look again.
    fn choose(&self, now: Instant) -> Result<(usize, usize), Option<Instant>> {
        let mut wake = None;
        let mut chosen: Option<((usize, usize), &Item)> = None;
        for (rank, queue) in self.queues.iter().enumerate() {
            for (index, item) in queue.iter().enumerate() {
                if item.subject.needs().any(|announced| self.unsettled.contains(announced)) {
                    continue;
                }
                if let Some(instant) = item.not_before.filter(|&instant| instant > now) {
                    wake = Some(wake.map_or(instant, |earlier: Instant| earlier.min(instant)));
                    continue;
                }
                if self.absences == 0 {
                    return Ok((rank, index));
                }
                // Whether the server is there is asked with each item in turn, so that one that it can't bear holds up
                // no other.
                if chosen.is_none_or(|(_, best)| item.absences < best.absences) {
                    chosen = Some(((rank, index), item));
                }
            }
        }
        chosen.map(|(place, _)| place).ok_or(wake)
    }

    /// The announcement was refused, or given up: what needs it is lost until it is announced again.
    fn refuse(&mut self, item: Item, reason: Reason, now: Instant) {
        let Some(announced) = item.subject.announces().cloned() else {
            return;
        };
        self.unsettled.remove(&announced);
        let mut needing = Vec::new();
        for queue in &mut self.queues {
            let (with, without): (VecDeque<Item>, VecDeque<Item>) = std::mem::take(queue)
                .into_iter()
                .partition(|other| other.subject.needs().any(|id| *id == announced));
            *queue = without;
            needing.extend(with);
        }
        for other in needing {
            self.discount(&other);
            self.lose(&other, reason);
            self.freed.extend(other.stored.clone());
            if let Some(id) = other.subject.announces().cloned() {
                self.unsettled.remove(&id);
                let refusal = Refusal {
                    item: other,
                    since: now,
                };
                self.refused.insert(id, refusal);
            }
        }
        self.refused.insert(announced, Refusal { item, since: now });
    }

    /// Has announcements that were refused long ago told again, for the sake of a block. False: it is too early.
    fn announce_again(&mut self, subject: &Subject, now: Instant) -> bool {
        let refused = |id: &&Arc<str>| self.refused.contains_key(*id);
        let needed: Vec<Arc<str>> = subject.needs().filter(refused).cloned().collect();
        let early = |id: &Arc<str>| self.refused[id].since + REFUSAL_HOLDS > now;
        if needed.iter().any(early) {
            return false;
        }
        for id in needed {
            if let Some(Refusal { mut item, .. }) = self.refused.remove(&id) {
                item.failures = 0;
                if let Some(remains) = &item.remains {
                    remains.waiting.fetch_add(1, Ordering::AcqRel);
                }
                item.not_before = None;
                self.put(item);
            }
        }
        true
    }

    /// Nobody tries to send the item any more; gives when that began.
    fn returned(&mut self, item: &Item) -> Option<Instant> {
        let index = self
            .under_way
            .iter()
            .position(|request| request.serial == item.serial)?;
        Some(self.under_way.swap_remove(index).since)
    }

    /// Each trouble is worth telling once.
    fn tell(&mut self, error: &str) {
        if self.news.len() < MOST_NEWS && self.news.iter().all(|told| told != error) {
            self.news.push(error.to_owned());
        }
    }

    /// Puts an item back in its place, to be tried again.
    fn put_back(&mut self, item: Item, error: Option<String>) {
        if error.is_some() {
            self.delivery.last_error = error;
        }
        let queue = &mut self.queues[item.rank()];
        let place = queue.partition_point(|other| other.serial < item.serial);
        queue.insert(place, item);
    }

    fn drop_for_good(&mut self, item: Item, reason: Reason, error: String, now: Instant) {
        self.tell(&error);
        self.delivery.last_error = Some(error);
        self.discount(&item);
        self.lose(&item, reason);
        self.freed.extend(item.stored.clone());
        self.refuse(item, reason, now);
    }
}

pub struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    limit_bytes: usize,
    credentials: Arc<Credentials>,
    /// Of this process's session.
    spool: Option<Arc<SessionSpool>>,
}

/// What a thread of the uploader is to do.
pub enum Task {
    Send(Item),
    /// Nothing came for as long as the thread wanted to wait.
    Idle,
    /// What is left is lost.
    End,
}

/// 10 ms, 100 ms, 1 s, then 10 s.
fn delay(tries: u32) -> Duration {
    let delay = Duration::from_millis(10 * 10_u64.pow(tries.saturating_sub(1).min(6)));
    delay.min(LONGEST_DELAY)
}

impl Outbox {
    pub fn new(limit_bytes: usize, credentials: Arc<Credentials>, spool: Option<Arc<SessionSpool>>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            limit_bytes,
            credentials,
            spool,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process always finds room: without it the blocks are of no use.
    pub fn announce_process(&self, process_id: &str, body: Vec<u8>) {
        let subject = Subject::Process {
            process_id: process_id.into(),
        };
        self.lock().put(Item::new(subject, body, None));
        self.changed.notify_all();
    }

    /// Lets go of the lock, and of the room in the spool of what was dropped under it.
    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let freed = std::mem::take(&mut state.freed);
        drop(state);
        for stored in freed {
            stored.settle(true);
        }
        self.changed.notify_all();
    }

    /// The blocks that the spool has room for. Less important ones that are there make room; the others are dropped.
    pub fn admit(&self, blocks: Vec<Block>) -> Vec<Block> {
        let limit = self.spool.as_ref().map_or(0, |spool| spool.facts.bytes);
        let mut state = self.lock();
        let mut admitted = Vec::new();
        let mut bytes = 0;
        for block in blocks {
            let size = block.body.len() as u64;
            let mut fits = true;
            while fits && state.stored + bytes + size > limit {
                fits = state.drop_one(block.subject.rank() + 1, true);
            }
            if fits {
                bytes += size;
                admitted.push(block);
            } else {
                state.lose_own(&block.subject, Reason::Queue);
            }
        }
        self.unlock(state);
        admitted
    }

    /// Takes a block, and the announcement of its stream before the first. One that is not in the spool needs memory: less
    /// important ones make room; else it is dropped itself, for of equals the older explains how it came to this.
    pub fn push(&self, block: Block, stored: Option<Stored>) {
        let mut state = self.lock();
        self.push_locked(&mut state, block, stored);
        self.unlock(state);
    }

    fn push_locked(&self, state: &mut State, block: Block, stored: Option<Stored>) {
        let Block {
            announcement,
            subject,
            body,
        } = block;
        if state.finished {
            state.keeps |= stored.is_some();
            if stored.is_none() {
                state.lose_own(&subject, Reason::Exit);
            }
            return;
        }
        if !state.announce_again(&subject, Instant::now()) {
            state.freed.extend(stored);
            return state.lose_own(&subject, Reason::Refused);
        }
        let announced = announcement.put.load(Ordering::Relaxed);
        let size = body.len() + if announced { 0 } else { announcement.body.len() };
        let mut item = Item::new(subject, body, Some(Arc::clone(&announcement)));
        item.stored = stored;
        let lacking = (state.memory + size).saturating_sub(self.limit_bytes);
        if lacking > 0 && item.stored.is_some() {
            item.body = Vec::new();
        } else if lacking > 0 && !state.unload(lacking) {
            while state.memory + size > self.limit_bytes {
                if !state.drop_one(item.rank() + 1, false) {
                    return state.lose_own(&item.subject, Reason::Queue);
                }
            }
        }
        if !announced {
            announcement.put.store(true, Ordering::Relaxed);
            state.put(Item::new(announcement.subject.clone(), announcement.body.clone(), None));
        }
        state.stored += item.stored.as_ref().map_or(0, |stored| stored.length() as u64);
        state.put(item);
    }

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
            state.put(item);
        }
        self.unlock(state);
    }

    /// Waits until all of it is settled. False: the end came first.
    pub fn wait_remains(&self, of: &Remains) -> bool {
        let mut state = self.lock();
        while of.waiting.load(Ordering::Acquire) > 0 {
            if state.finished || state.stop_at.is_some() {
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
            if state.finished || state.stop_at.is_some() {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Whether blocks were left in the spool at the end.
    pub fn keeps(&self) -> bool {
        self.lock().keeps
    }

    /// The next item that may be tried, for a thread that waits for one as long as `patience`, if that is given.
    pub fn take(&self, patience: Option<Duration>) -> Task {
        let give_up = patience.map(|patience| Instant::now() + patience);
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(stop_at) = state.stop_at {
                let out_of_tries = state.tries_at_end >= TRIES_AT_END;
                if now >= stop_at || out_of_tries || state.is_empty() {
                    return Task::End;
                }
            }
            let paused = state.pause_until.filter(|&until| until > now);
            // One request finds out whether the server is back.
            let probing = state.absences > 0 && !state.under_way.is_empty();
            let wake = if self.credentials.pass().is_none() {
                None
            } else if paused.is_some() || probing {
                paused
            } else {
                match state.choose(now) {
                    Ok((rank, index)) => {
                        if let Some(mut item) = state.queues[rank].remove(index) {
                            state.under_way.push(UnderWay {
                                serial: item.serial,
                                subject: item.subject.clone(),
                                since: now,
                            });
                            let Some(stored) = item.stored.as_ref().filter(|_| item.body.is_empty()) else {
                                return Task::Send(item);
                            };
                            drop(state);
                            let read = stored.read();
                            state = self.lock();
                            match read {
                                Ok(body) => {
                                    state.memory += body.len();
                                    item.body = body;
                                    return Task::Send(item);
                                }
                                Err(error) => {
                                    state.returned(&item);
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
            let wake = [wake, state.stop_at, give_up].into_iter().flatten().min();
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
        if let Some(since) = state.returned(&item) {
            if state.requests.len() < MOST_REQUESTS {
                let took = now - since;
                state.requests.push(Request { took, ended: now });
            }
        }
        match outcome {
            Outcome::Sent => {
                state.absences = 0;
                state.pause_until = None;
                state.has_sent = true;
                state.discount(&item);
                done = item.stored.clone();
                if let Some(announced) = item.subject.announces() {
                    state.unsettled.remove(announced);
                }
                state.delivery.sent_requests += 1;
                state.delivery.sent_bytes += item.body.len() as u64;
                match &item.remains {
                    Some(remains) => {
                        remains.sent_events.fetch_add(item.subject.events(), Ordering::AcqRel);
                    }
                    None => state.delivery.sent_events += item.subject.events(),
                }
            }
            Outcome::Refused(error) => {
                state.absences = 0;
                state.drop_for_good(item, Reason::Refused, error, now);
            }
            Outcome::Failed(error) => {
                state.absences = 0;
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
                    state.tell(error);
                }
                state.put_back(item, error);
            }
            Outcome::Away(error, patience) => {
                // Whoever else was under way when the server went away tells nothing new.
                if state.pause_until.is_none_or(|until| until <= now) {
                    state.absences += 1;
                    if state.absences == ABSENCES_TOLD {
                        state.tell(&error);
                    }
                    let mut count = state.absences;
                    if state.stop_at.is_some() {
                        // While ending, start over with short delays: the last chance must not be slept away.
                        state.tries_at_end += 1;
                        count = state.tries_at_end;
                    }
                    state.pause_until = Some(now + patience.unwrap_or_else(|| delay(count)));
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
        self.unlock(state);
        if let Some(stored) = done {
            stored.settle(false);
        }
    }

    /// There is something to be let in with.
    pub fn pass_came(&self) {
        drop(self.lock()); // who looked for it a moment ago must be waiting by now
        self.changed.notify_all();
    }

    /// All that was put so far lies below this serial.
    pub fn horizon(&self) -> u64 {
        self.lock().next_serial
    }

    /// Waits until nothing below `horizon` is left, at most until the deadline. None: not yet. Else whether all of it
    /// was answered.
    pub fn wait_settled(&self, horizon: u64, deadline: Instant) -> Option<bool> {
        let mut state = self.lock();
        loop {
            let waiting = state
                .queues
                .iter()
                .filter_map(|queue| queue.front())
                .map(|item| item.serial);
            let mut unsettled = state.under_way.iter().map(|request| request.serial).chain(waiting);
            if unsettled.all(|serial| serial >= horizon) {
                return Some(!state.abandoned);
            }
            if state.finished {
                return Some(false);
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// From now on: send what is there, give up at the deadline.
    pub fn stop(&self, deadline: Instant) {
        let mut state = self.lock();
        state.stop_at = Some(deadline);
        state.pause_until = None;
        for item in state.queues.iter_mut().flatten() {
            item.not_before = None; // the last chance must not be slept away
        }
        drop(state);
        self.changed.notify_all();
    }

    pub fn stop_at(&self) -> Option<Instant> {
        self.lock().stop_at
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
        state.bytes = 0;
        let own = std::mem::take(&mut state.queues).into_iter().take(OWN_RANKS).flatten();
        let under_way = std::mem::take(&mut state.under_way).into_iter(); // of a thread that panicked
        let under_way = under_way
            .filter(|request| request.serial != NO_SERIAL)
            .map(|request| (request.subject, false));
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

    pub fn delivery(&self) -> Delivery {
        self.lock().delivery.clone()
    }

    /// What the server says about itself when it takes a process.
    pub fn learn_formats(&self, formats: Vec<String>) {
        self.lock().delivery.server_formats = Some(formats);
    }

    /// Troubles that were not told yet.
    pub fn news(&self) -> Vec<String> {
        let mut state = self.lock();
        let news = state.news[state.news_told..].to_vec();
        state.news_told = state.news.len();
        news
    }

    pub fn traffic(&self) -> Traffic {
        let mut state = self.lock();
        Traffic {
            waiting: state.queues.iter().map(VecDeque::len).sum(),
            bytes: state.bytes,
            under_way: state.under_way.len(),
            dropped: state.dropped_blocks,
            requests: std::mem::take(&mut state.requests),
        }
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.lock().bytes
    }
}
