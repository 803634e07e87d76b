//! The spool of the session that records now. Trouble with it never reaches the program: it is told in `status()` and by one
//! log event, and the session goes on in private memory.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::claim::remove_session;
use super::folder::{self, create_file, keeps_pages, pages_in_memory, private_folder};
use super::journal::{self, CounterStart, Opening};
use super::recovery::Recovered;
use super::segments::{Kept, Marks, Segments, Stored};
use crate::recorder::{descriptors, hotpath, hushed::hush};

/// How often a folder is made that somebody takes away in the making.
const MOST_TRIES: u32 = 3;

/// What `init()` decided.
#[derive(Clone, Default)]
pub struct SpoolFacts {
    /// None: no spool.
    pub folder: Option<PathBuf>,
    /// The most that waits in segments.
    pub bytes: u64,
}

enum Phase {
    Off,
    /// The folder is made with the first buffer.
    Wanted,
    Open(Home),
    Closed,
}

struct Home {
    path: PathBuf,
    /// Where the buffers are, unless they are in private memory.
    pages: Option<(PathBuf, File)>,
    segments: Arc<Segments>,
    journal: File,
    lock: File,
}

struct State {
    phase: Phase,
    /// Threads that still use it: the collector's, the uploader's.
    users: usize,
    waits: bool,
    trouble: Option<String>,
    news: Vec<String>,
    recovered: Recovered,
}

pub struct SessionSpool {
    pub facts: SpoolFacts,
    opening: Opening,
    counters: Vec<CounterStart>,
    state: Mutex<State>,
    changed: Condvar,
}

fn within(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl SessionSpool {
    pub fn new(facts: SpoolFacts, opening: Opening, counters: Vec<CounterStart>) -> Arc<Self> {
        let phase = if facts.folder.is_some() {
            Phase::Wanted
        } else {
            Phase::Off
        };
        Arc::new(Self {
            facts,
            opening,
            counters,
            state: Mutex::new(State {
                phase,
                users: 2,
                waits: false,
                trouble: None,
                news: Vec::new(),
                recovered: Recovered::default(),
            }),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folder, if it is wanted and not there. Needs the GIL.
    pub fn open(&self) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Wanted) {
            return;
        }
        let Some(folder) = &self.facts.folder else { return };
        let _hushed = hush();
        match self.make(folder) {
            Ok(home) => {
                if home.pages.is_none() {
                    state.tell("no folder takes the buffers".to_owned());
                }
                state.phase = Phase::Open(home);
            }
            Err(error) => {
                state.tell(error.to_string());
                state.phase = Phase::Off;
            }
        }
    }

    fn make(&self, spool: &Path) -> Result<Home> {
        private_folder(spool)?;
        let path = spool.join(&self.opening.process_id);
        // Nobody takes a folder of another name for a session, so nobody finds it before it is locked.
        let unnamed = folder::unnamed(spool, &self.opening.process_id);
        let mut tries = MOST_TRIES;
        loop {
            let made = private_folder(&unnamed)
                .and_then(|()| self.fill(&unnamed, &path))
                .and_then(|home| fs::rename(&unnamed, &path).map(|()| home));
            let Err(error) = made else { return made };
            let _left = fs::remove_dir_all(&unnamed);
            tries -= 1;
            // After a pause of a minute, not locked yet, it was taken for one that was left (`recovery::tidy`).
            let was_taken = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::WouldBlock);
            if tries == 0 || !was_taken {
                return Err(within(&path, &error));
            }
        }
    }

    fn fill(&self, unnamed: &Path, path: &Path) -> Result<Home> {
        let lock = create_file(&unnamed.join("lock"))?;
        lock.try_lock()?;
        let pages = self.open_pages(unnamed, path);
        let mut opening = self.opening.clone();
        if let Some((pages, _)) = &pages {
            opening.pages = pages.display().to_string();
        }
        let mut journal = create_file(&unnamed.join("journal"))?;
        let mut entries = journal::opening_entry(&opening);
        for counter in &self.counters {
            entries.extend(journal::counter_entry(counter));
        }
        descriptors::with_all(|descriptors| {
            for descriptor in descriptors {
                entries.extend(journal::descriptor_entry(descriptor));
            }
            journal.write_all(&entries)?;
            journal::begin(journal.as_raw_fd());
            Ok::<(), Error>(())
        })?;
        hotpath::hold(hotpath::HELD_LOCK, &lock);
        hotpath::hold(hotpath::HELD_JOURNAL, &journal);
        if let Some((_, folder)) = &pages {
            hotpath::hold(hotpath::HELD_FOLDER, folder);
        }
        Ok(Home {
            path: path.to_owned(),
            pages,
            segments: Segments::new(path),
            journal,
            lock,
        })
    }

    /// In memory when possible; else beside the segments, when writing there can't fail.
    fn open_pages(&self, unnamed: &Path, path: &Path) -> Option<(PathBuf, File)> {
        let in_memory = pages_in_memory();
        let own = in_memory.join(&self.opening.process_id);
        if keeps_pages(Path::new("/dev/shm")) && private_folder(&in_memory).is_ok() && private_folder(&own).is_ok() {
            if let Some(folder) = open_pages_in(&own) {
                return Some((own, folder));
            }
            let _left = fs::remove_dir_all(&own);
        }
        if !keeps_pages(unnamed) {
            return None;
        }
        open_pages_in(unnamed).map(|folder| (path.to_owned(), folder))
    }

    /// Keeps a batch; None when it can't, or there is no spool.
    pub fn append(&self, marks: &Marks, blocks: &[Kept<'_>]) -> Option<Vec<Stored>> {
        let segments = match &self.lock().phase {
            Phase::Open(home) => Arc::clone(&home.segments),
            _ => return None,
        };
        if journal::is_behind() {
            descriptors::with_all(|_| journal::append(&[]));
            if journal::is_behind() {
                self.lock()
                    .tell("journal: no room for the descriptions of events".to_owned());
            }
        }
        match segments.append(marks, blocks) {
            Ok(stored) => Some(stored),
            Err(error) => {
                self.lock().tell(format!("segment: {error}"));
                None
            }
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.lock().phase, Phase::Open(_))
    }

    /// The folder, bytes in its segments, and what went wrong last, for `status()`.
    pub fn report(&self) -> (Option<String>, u64, Option<String>) {
        let state = self.lock();
        let (path, bytes) = match &state.phase {
            Phase::Open(home) => (Some(home.path.display().to_string()), home.segments.bytes()),
            _ => (None, 0),
        };
        (path, bytes, state.trouble.clone())
    }

    /// What there is to tell, once: that there is trouble, what was recovered of others.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().news)
    }

    pub fn tell_tidied(&self, error: Option<String>) {
        let told = error.map(|error| format!("spool: {error}"));
        self.lock().news.extend(told);
    }

    pub fn tell_recovered(&self, recovered: Recovered) {
        let mut state = self.lock();
        if let Some(error) = &recovered.last_error {
            state.news.push(format!("spool: recovery: {error}"));
        }
        state.recovered = recovered;
    }

    pub fn recovered(&self) -> Recovered {
        self.lock().recovered.clone()
    }

    /// One of the users ends; with the last one the folder goes, or stays for the next start if something `waits` in it.
    pub fn leave(&self, waits: bool) {
        let mut state = self.lock();
        state.waits |= waits;
        state.users = state.users.saturating_sub(1);
        if state.users > 0 {
            return;
        }
        if let Phase::Open(home) = std::mem::replace(&mut state.phase, Phase::Closed) {
            home.close(state.waits);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the folder is closed, at most until then.
    pub fn wait_closed(&self, until: Instant) -> bool {
        let mut state = self.lock();
        while state.users > 0 {
            let patience = until.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl State {
    fn tell(&mut self, trouble: String) {
        if self.trouble.is_none() {
            self.news.push(format!(
                "spool: {trouble}: what is not sent yet is lost if the process is killed"
            ));
        }
        self.trouble = Some(trouble);
    }
}

fn open_pages_in(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    hotpath::open_pages(&folder).then_some(folder)
}

impl Home {
    fn close(self, waits: bool) {
        hotpath::let_go(hotpath::HELD_JOURNAL, &self.journal);
        journal::mm_journal_end(self.journal.as_raw_fd());
        hotpath::let_go(hotpath::HELD_LOCK, &self.lock);
        if let Some((path, folder)) = &self.pages {
            hotpath::let_go(hotpath::HELD_FOLDER, folder);
            hotpath::close_pages(folder);
            if path != &self.path {
                let _left = fs::remove_dir_all(path);
            } else if waits {
                super::pages::remove_from(path);
            }
        }
        if !waits {
            let _left = remove_session(&self.path);
        }
    }
}
