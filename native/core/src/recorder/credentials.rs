//! What requests carry to be let in. Values are secrets: nothing here has a `Debug`, and no text is made of them.

use std::sync::{Arc, Mutex, PoisonError};

use super::http::Header;

/// Headers of one moment, and which moment that was.
pub struct Pass {
    pub headers: Arc<Vec<Header>>,
    pub number: u64,
}

#[derive(Default)]
struct State {
    headers: Option<Arc<Vec<Header>>>,
    number: u64,
    refused: bool,
}

/// Headers that stay as they are, or that the program hands over and renews (`renewed`).
pub struct Credentials {
    fixed: Vec<Header>,
    pub renewed: bool,
    state: Mutex<State>,
}

impl Credentials {
    pub fn new(fixed: Vec<Header>, renewed: bool) -> Self {
        let headers = (!renewed).then(|| Arc::new(fixed.clone()));
        Self {
            fixed,
            renewed,
            state: Mutex::new(State {
                headers,
                ..State::default()
            }),
        }
    }

    /// What to send now. None: wait until there is something.
    pub fn pass(&self) -> Option<Pass> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.headers.as_ref().map(|headers| Pass {
            headers: Arc::clone(headers),
            number: state.number,
        })
    }

    /// The program hands over what it obtained; it stands in place of fixed headers of the same name.
    pub fn renew(&self, obtained: Vec<Header>) {
        let mut headers = self.fixed.clone();
        headers.retain(|(name, _)| obtained.iter().all(|(other, _)| other != name));
        headers.extend(obtained);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.headers = Some(Arc::new(headers));
        state.number += 1;
        state.refused = false;
    }

    /// The server did not let that pass in. Tells whether there is hope in waiting: for the next one, or because it came.
    pub fn refuse(&self, number: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.renewed && state.number == number {
            state.headers = None;
            state.refused = true;
        }
        self.renewed
    }

    /// Whether the program should obtain others before the time it meant to.
    pub fn refused(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refused
    }
}
