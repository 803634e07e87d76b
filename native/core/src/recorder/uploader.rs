//! Sends the items of the outbox over HTTP, several at once, and tells what became of each.
//!
//! Network errors, 502, 503, 504, and 408, 425, 429: the server is away, everything waits and is tried for as long as the
//! outbox has room. Other 5xx: this item failed; it is tried a few times more while others go on. Other 4xx, and 3xx: final.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::Agent;

use super::hotpath;
use super::outbox::{Item, Outbox, Outcome, Task};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests may be under way at once, each in a thread of its own.
const MOST_UNDER_WAY: usize = 3;
/// The longest that a server's `Retry-After` is heeded.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
/// How long a thread beside the first one waits for something to do.
const IDLE: Duration = Duration::from_secs(5);

pub struct Uploader {
    pub outbox: Arc<Outbox>,
    /// False: everything counts as sent.
    pub sends: bool,
    /// Without a trailing slash.
    pub url: String,
    pub authorization: Option<String>,
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

/// Tells the outbox of the end of a thread, also when it panics or never began.
struct Presence(Arc<Outbox>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Uploader {
    /// Runs until the outbox is stopped and empty, or out of time.
    pub fn run(self) {
        self.outbox.enter();
        let presence = Presence(Arc::clone(&self.outbox));
        Arc::new(self).work(&Agent::new_with_config(agent_config()), None, &presence);
    }

    /// Sends what comes, and takes on another thread while there is more to send than those present can have under way.
    fn work(self: Arc<Self>, agent: &Agent, patience: Option<Duration>, _: &Presence) {
        while let Task::Send(item) = self.outbox.take(patience) {
            if self.outbox.enter_if_more(MOST_UNDER_WAY) {
                let presence = Presence(Arc::clone(&self.outbox));
                let (uploader, agent) = (Arc::clone(&self), agent.clone());
                // If it can't be had, those that are there send all.
                let _started = thread::Builder::new().name("mm-uploader".to_owned()).spawn(move || {
                    hotpath::block_signals();
                    uploader.work(&agent, Some(IDLE), &presence);
                });
            }
            let outcome = if self.sends {
                self.send(agent, &item)
            } else {
                Outcome::Sent
            };
            self.outbox.settle(item, outcome);
        }
    }

    fn send(&self, agent: &Agent, item: &Item) -> Outcome {
        let mut timeout = ATTEMPT_TIMEOUT;
        if let Some(stop_at) = self.outbox.stop_at() {
            let left = stop_at.saturating_duration_since(Instant::now());
            timeout = timeout.min(left.max(Duration::from_millis(10)));
        }
        let mut request = agent
            .post(format!("{}/ingestion/{}", self.url, item.subject.route()))
            .config()
            .timeout_global(Some(timeout))
            .build()
            .content_type("application/cbor");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = match request.send(item.body.as_slice()) {
            Ok(response) => response,
            Err(error) => return Outcome::Away(format!("{}: {error}", item.subject.route()), None),
        };
        let status = response.status().as_u16();
        let patience = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_PATIENCE));
        // Reading the (short) body lets the connection serve the next request.
        let text = response
            .body_mut()
            .with_config()
            .limit(4096)
            .read_to_string()
            .unwrap_or_default();
        let error = || format!("{}: status {status}: {}", item.subject.route(), text.trim());
        match status {
            200..=299 => Outcome::Sent,
            408 | 425 | 429 | 502..=504 => Outcome::Away(error(), patience),
            500..=599 => Outcome::Failed(error()),
            _ => Outcome::Refused(error()),
        }
    }
}
