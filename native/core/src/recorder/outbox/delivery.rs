//! What is told about the outbox: what became of what was sent, how the queue stands, the troubles.

use super::requests::Request;
use crate::recorder::losses::Losses;

/// How many different troubles of a session are told.
const MOST_NEWS: usize = 8;

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

/// How the queue stands, and what became of requests since the last look.
pub struct Traffic {
    pub waiting: usize,
    pub bytes: usize,
    pub under_way: usize,
    /// Blocks, since the session began.
    pub dropped: u64,
    pub requests: Vec<Request>,
}

/// Troubles of a session, each once.
#[derive(Default)]
pub struct News {
    troubles: Vec<String>,
    told: usize,
}

impl News {
    /// Each trouble is worth telling once.
    pub fn add(&mut self, trouble: &str) {
        if self.troubles.len() < MOST_NEWS && self.troubles.iter().all(|known| known != trouble) {
            self.troubles.push(trouble.to_owned());
        }
    }

    /// Those that were not told yet.
    pub fn take(&mut self) -> Vec<String> {
        let news = self.troubles[self.told..].to_vec();
        self.told = self.troubles.len();
        news
    }
}
