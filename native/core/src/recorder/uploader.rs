//! Sends the items of the outbox over HTTP, several at once, and tells what became of each.
//!
//! Network errors, 502, 503, 504, and 408, 425, 429: the server is away, everything waits and is tried for as long as the
//! outbox has room. 401 means the same while the program can hand over other credentials. Other 5xx: this item failed; it is tried a few times more while others go on. Other 4xx, and 3xx: final.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::codec::{timestamp::parse_rfc3339, Format};

use super::credentials::{Credentials, Pass};
use super::encoding::Negotiation;
use super::hotpath;
use super::http::{Answer, Client, Server};
use super::outbox::{Item, Outbox, Outcome, Subject, Task};

const FORMATS_HEADER: &str = "micromegas-stream-formats";
/// For a request that is small; a large one gets the time that it takes on a slow line, too.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const SLOWEST_BYTES_PER_SECOND: u64 = 128 << 10;
/// What a request gets in any case, also when the end has come.
const LAST_CHANCE: Duration = Duration::from_millis(10);
/// How many requests may be under way at once, each in a thread of its own.
const MOST_UNDER_WAY: usize = 3;
/// The longest that a server's `Retry-After` is heeded.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// How long a thread beside the first one waits for something to do.
const IDLE: Duration = Duration::from_secs(5);

pub struct Uploader {
    pub outbox: Arc<Outbox>,
    /// False: everything counts as sent.
    pub sends: bool,
    pub server: Arc<Server>,
    pub credentials: Arc<Credentials>,
    pub negotiation: Negotiation,
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
        Arc::new(self).work(None, &presence);
    }

    /// Sends what comes. While it is busy another thread is there for what comes next.
    fn work(self: Arc<Self>, patience: Option<Duration>, _: &Presence) {
        let mut client = Client::new(Arc::clone(&self.server));
        while let Task::Send(item) = self.outbox.take(patience) {
            if self.outbox.enter_if_none_waits(MOST_UNDER_WAY) {
                let presence = Presence(Arc::clone(&self.outbox));
                let uploader = Arc::clone(&self);
                // If it can't be had, those that are there send all.
                let _started = thread::Builder::new().name("mm-uploader".to_owned()).spawn(move || {
                    hotpath::block_signals();
                    uploader.work(Some(IDLE), &presence);
                });
            }
            let outcome = if self.sends {
                self.send(&mut client, &item)
            } else {
                Outcome::Sent { bytes: item.body.len() }
            };
            self.outbox.settle(item, outcome);
        }
    }

    fn send(&self, client: &mut Client, item: &Item) -> Outcome {
        let Some(Pass { headers, number }) = self.credentials.pass() else {
            return Outcome::NoPass(None);
        };
        let route = item.subject.route();
        let body = match self.negotiation.body(&item.subject, &item.body) {
            Ok(body) => body,
            Err(error) => return Outcome::Refused(format!("{route}: as records: {error}")),
        };
        let seconds_on_the_way = body.len() as u64 / SLOWEST_BYTES_PER_SECOND;
        let mut deadline = Instant::now() + ATTEMPT_TIMEOUT + Duration::from_secs(seconds_on_the_way);
        if let Some(stop_at) = self.outbox.stop_at() {
            deadline = deadline.min(stop_at.max(Instant::now() + LAST_CHANCE));
        }
        let answer = match client.post(&format!("/ingestion/{route}"), &headers, &body, deadline) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Away(format!("{route}: {error}"), None),
        };
        match answer.status {
            200..=299 => {
                if let Subject::Process { process_id } = &item.subject {
                    let formats = formats(&answer);
                    self.negotiation.process_announced(process_id, &formats);
                    self.outbox.learn_formats(formats);
                }
                Outcome::Sent { bytes: body.len() }
            }
            401 if self.credentials.refuse(number) => Outcome::NoPass(Some(refusal(route, &answer))),
            // 407 is a proxy's: nothing that the server has said about the item
            407 | 408 | 425 | 429 | 502..=504 => Outcome::Away(refusal(route, &answer), patience(&answer)),
            500..=599 => Outcome::Failed(refusal(route, &answer)),
            _ => Outcome::Refused(refusal(route, &answer)),
        }
    }
}

/// The encodings of blocks that the server reads; one that does not say reads what all servers read.
fn formats(answer: &Answer) -> Vec<String> {
    let names = answer.header(FORMATS_HEADER).unwrap_or(Format::Transit.name());
    names.split(',').map(|name| name.trim().to_owned()).collect()
}

/// What the server asked for, in seconds or as a date, as far as it is heeded.
fn patience(answer: &Answer) -> Option<Duration> {
    let wanted = answer.header("retry-after")?.trim();
    let asked = if !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(wanted.parse().unwrap_or(u64::MAX))
    } else {
        // By the server's clock: it doesn't matter what ours says.
        let said_ns = answer.header("date").and_then(http_date_ns)?;
        Duration::from_nanos(http_date_ns(wanted)?.saturating_sub(said_ns).max(0) as u64)
    };
    Some(asked.min(LONGEST_PATIENCE))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the form that is sent nowadays).
fn http_date_ns(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let &[_, day, month, year, time, "GMT"] = words.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

fn refusal(route: &str, answer: &Answer) -> String {
    let hint = match answer.status {
        300..=399 => " (redirects are not followed: the url should be the last one's)",
        _ => "",
    };
    format!("{route}: status {}{hint}: {}", answer.status, answer.text)
}
