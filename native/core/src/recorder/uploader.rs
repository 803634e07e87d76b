//! Sends the items of the outbox over HTTP, one at a time, and decides what is tried again.
//!
//! Network errors, 502, 503, 504: the server is away, everything waits and is tried for as long as the outbox has room.
//! Other 5xx: this item failed; it is tried a few times more while others go on. 4xx and 3xx: final.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::Agent;

use super::layouts::StreamKind;
use super::outbox::{Item, Outbox, Outcome};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How often a server that is away is tried while the process waits to end.
const ATTEMPTS_AT_END: u32 = 3;

pub struct Uploader {
    pub outbox: Arc<Outbox>,
    /// Without a trailing slash.
    pub url: String,
    pub authorization: Option<String>,
}

enum Answer {
    Accepted,
    Failed(String),
    Away(String),
    Final(String),
}

/// 10 ms, 100 ms, 1 s, then 10 s.
fn delay(attempts: u32) -> Duration {
    let delay = Duration::from_millis(10 * 10_u64.pow(attempts.saturating_sub(1).min(6)));
    delay.min(LONGEST_DELAY)
}

fn retries(kind: Option<StreamKind>) -> u32 {
    match kind {
        None => 10,
        Some(StreamKind::Log) => 5,
        Some(StreamKind::Metrics) => 2,
        Some(StreamKind::Cpu) => 1,
    }
}

fn agent_config() -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("micromegas-python/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Knows no host, so that a request through it ends before a connection is tried.
#[derive(Debug)]
struct NoHosts;

impl Resolver for NoHosts {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Err(ureq::Error::HostNotFound)
    }
}

/// Has the HTTP client make what it makes at its first request. To be called with the GIL, before the uploader's thread:
/// a fork in the middle of it would leave the child with something for ever in the making, and waiting for it.
pub fn warm_up() {
    let agent = Agent::with_parts(agent_config(), DefaultConnector::default(), NoHosts);
    let refused = agent.post("http://nowhere/").send(&[] as &[u8]);
    debug_assert!(refused.is_err());
}

impl Uploader {
    /// Runs until the outbox is stopped and empty, or out of time.
    pub fn run(self) {
        let agent = Agent::new_with_config(agent_config());
        let mut absences = 0;
        let mut absences_at_end = 0;
        let mut pause_until = None;
        while let Some(mut item) = self.outbox.take(pause_until, absences_at_end > 0) {
            pause_until = None;
            match self.send(&agent, &item) {
                Answer::Accepted => {
                    absences = 0;
                    self.outbox.settle(&item, Outcome::Sent);
                }
                Answer::Final(error) => self.outbox.settle(&item, Outcome::RefusedByServer(error)),
                Answer::Failed(error) => {
                    item.attempts += 1;
                    if item.attempts > retries(item.kind) {
                        self.outbox.settle(&item, Outcome::RefusedByServer(error));
                    } else {
                        item.not_before = Some(Instant::now() + delay(item.attempts));
                        self.outbox.put_back(item, error);
                    }
                }
                Answer::Away(error) => {
                    absences += 1;
                    if self.outbox.stop_at().is_some() {
                        absences_at_end += 1;
                    }
                    self.outbox.put_back(item, error);
                    if absences_at_end >= ATTEMPTS_AT_END {
                        break;
                    }
                    // While ending, start over with short delays: the last chance must not be slept away.
                    let count = if absences_at_end > 0 { absences_at_end } else { absences };
                    pause_until = Some(Instant::now() + delay(count));
                }
            }
        }
        self.outbox.finish();
    }

    fn send(&self, agent: &Agent, item: &Item) -> Answer {
        let mut timeout = ATTEMPT_TIMEOUT;
        if let Some(stop_at) = self.outbox.stop_at() {
            let left = stop_at.saturating_duration_since(Instant::now());
            timeout = timeout.min(left.max(Duration::from_millis(10)));
        }
        let mut request = agent
            .post(format!("{}/ingestion/{}", self.url, item.route))
            .config()
            .timeout_global(Some(timeout))
            .build()
            .content_type("application/cbor");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = match request.send(item.body.as_slice()) {
            Ok(response) => response,
            Err(error) => return Answer::Away(format!("{}: {error}", item.route)),
        };
        let status = response.status().as_u16();
        // Reading the (short) body lets the connection serve the next request.
        let text = response
            .body_mut()
            .with_config()
            .limit(4096)
            .read_to_string()
            .unwrap_or_default();
        let error = || format!("{}: status {status}: {}", item.route, text.trim());
        match status {
            200..=299 => Answer::Accepted,
            502..=504 => Answer::Away(error()),
            500..=599 => Answer::Failed(error()),
            _ => Answer::Final(error()),
        }
    }
}
