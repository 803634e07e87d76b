//! Takes secrets out of the texts of log events: what looks like a password, token or key becomes `[scrubbed]`.
//!
//! Only where a secret may begin (secret_beginnings.rs), a hand-written matcher looks closer, and never twice at the same
//! bytes, so that no text can make it slow.

use regex_lite::Regex;

use super::secret_beginnings::{next_beginning, Kind, BEGINNINGS};

pub const SCRUBBED: &str = "[scrubbed]";

/// What is done about secrets, decided by `init()`.
#[derive(Debug)]
pub enum Scrubber {
    Off,
    /// The matchers of this file, and patterns of the program's own.
    On(Vec<Regex>),
}

const SCHEMES: &[&str] = &["bearer", "basic", "token", "digest", "negotiate", "apikey"];
const SHORTEST_SCHEME_SECRET: usize = 16;
const PRIVATE_KEY_HEAD: usize = 64;

/// The end of the run of bytes that `belongs` holds for.
fn run(text: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let length = text.get(from..).unwrap_or_default().iter();
    from + length.take_while(|&&byte| belongs(byte)).count()
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// The secret, if there is one, and where to look on.
type Match = (Option<(usize, usize)>, usize);

fn after_name(text: &[u8], end: usize) -> Match {
    let nothing = (None, end);
    let mut at = end;
    if text.get(at).is_some_and(|byte| b"\"'".contains(byte)) {
        at += 1;
    }
    at = run(text, at, |byte| byte == b' ');
    match text.get(at) {
        Some(b'=' | b':') => at += 1,
        _ => return nothing,
    }
    if text.get(at) == Some(&b'>') {
        at += 1;
    }
    at = run(text, at, |byte| byte == b' ');
    let quote = text.get(at).copied().filter(|byte| b"\"'".contains(byte));
    if quote.is_some() {
        at += 1;
    }
    let scheme_end = run(text, at, |byte| byte.is_ascii_alphabetic());
    if text.get(scheme_end) == Some(&b' ')
        && SCHEMES
            .iter()
            .any(|scheme| text[at..scheme_end].eq_ignore_ascii_case(scheme.as_bytes()))
    {
        at = run(text, scheme_end, |byte| byte == b' ');
    }
    let value_end = match quote {
        Some(quote) => run(text, at, |byte| byte != quote && byte != b'\n'),
        None => run(text, at, |byte| {
            !byte.is_ascii_whitespace() && !b",;&\"'<>)]}".contains(&byte)
        }),
    };
    // What is there already, and conversions of templates that stand in a message as they are.
    let value = &text[at..value_end];
    if value.is_empty() || value.starts_with(b"%") || value.starts_with(b"[scrubbed") {
        return (None, value_end);
    }
    (Some((at, value_end)), value_end)
}

fn in_url(text: &[u8], end: usize) -> Match {
    let authority_end = run(text, end, |byte| {
        !byte.is_ascii_whitespace() && byte.is_ascii() && !b"/?#\"'<>".contains(&byte)
    });
    let authority = &text[end..authority_end];
    let at_sign = authority.iter().rposition(|&byte| byte == b'@');
    let secret = at_sign.and_then(|at_sign| {
        let colon = authority[..at_sign].iter().position(|&byte| byte == b':')?;
        (colon + 1 < at_sign && &authority[colon + 1..at_sign] != SCRUBBED.as_bytes())
            .then_some((end + colon + 1, end + at_sign))
    });
    // Authorities end at the `/` of the next one, so these bytes may be looked at for other things.
    (secret, secret.map_or(end, |(_, to)| to))
}

fn private_key(text: &[u8], end: usize) -> Match {
    let head = &text[end..text.len().min(end + PRIVATE_KEY_HEAD)];
    let mark = b"PRIVATE KEY-----";
    let Some(at) = head.windows(mark.len()).position(|found| found == mark) else {
        return (None, end);
    };
    let begin = end + at + mark.len();
    let length = text[begin..].windows(8).position(|found| found == b"-----END");
    let secret_end = length.map_or(text.len(), |length| begin + length);
    ((secret_end > begin).then_some((begin, secret_end)), secret_end)
}

fn web_token(text: &[u8], begin: usize) -> Match {
    let head = run(text, begin, is_base64);
    if head - begin < 10 || text.get(head) != Some(&b'.') {
        return (None, after_run(begin, head));
    }
    let body = run(text, head + 1, is_base64);
    if body - head < 10 || text.get(body) != Some(&b'.') {
        return (None, after_run(begin, body));
    }
    let end = run(text, body + 1, is_base64);
    (Some((begin, end)), end)
}

/// Where to look on after a run that was no secret: what else may begin in it is looked for if it is short.
fn after_run(end: usize, to: usize) -> usize {
    if to - end < 64 {
        end
    } else {
        to
    }
}

fn look_closer(text: &[u8], begin: usize, beginning: &(&str, Kind)) -> Match {
    let end = begin + beginning.0.len();
    let stands_alone = begin == 0 || !text[begin - 1].is_ascii_alphanumeric();
    match beginning.1 {
        Kind::Name => after_name(text, end),
        Kind::Scheme => {
            let from = run(text, end, |byte| byte == b' ');
            let to = run(text, from, is_token);
            match to - from >= SHORTEST_SCHEME_SECRET {
                true => (Some((from, to)), to),
                false => (None, after_run(end, to)),
            }
        }
        Kind::Url => in_url(text, end),
        Kind::PrivateKey => private_key(text, end),
        Kind::WebToken => web_token(text, begin),
        Kind::Marked(least) => {
            let to = run(text, end, is_base64);
            match stands_alone && to - end >= least {
                true => (Some((begin, to)), to),
                false => (None, after_run(end, to)),
            }
        }
        Kind::AccessKey(exactly) => {
            let to = run(text, end, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            let is_upper = text[begin..end].iter().all(u8::is_ascii_uppercase);
            (
                (stands_alone && is_upper && to - end == exactly).then_some((begin, to)),
                to.max(end),
            )
        }
    }
}

impl Default for Scrubber {
    fn default() -> Self {
        Self::On(Vec::new())
    }
}

impl Scrubber {
    /// With patterns of the program's own. Err: the one that is none, and why.
    pub fn new(on: bool, patterns: &[String]) -> Result<Self, String> {
        let pattern = |text: &String| Regex::new(text).map_err(|error| format!("scrub pattern {text:?}: {error}"));
        Ok(match on {
            true => Self::On(patterns.iter().map(pattern).collect::<Result<_, _>>()?),
            false => Self::Off,
        })
    }

    /// What `new` was given.
    pub fn decision(&self) -> (bool, Vec<String>) {
        match self {
            Self::Off => (false, Vec::new()),
            Self::On(patterns) => (
                true,
                patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            ),
        }
    }

    /// Whether `scrub` could change such a text; quick, and true too often rather than too seldom.
    pub fn is_suspicious(&self, text: &[u8]) -> bool {
        match self {
            Self::Off => false,
            Self::On(patterns) => !patterns.is_empty() || next_beginning(text, 0).is_some(),
        }
    }

    /// The text from `start` on, without secrets. Tells whether there were any.
    pub fn scrub(&self, text: &mut String, start: usize) -> bool {
        let Self::On(patterns) = self else {
            return false;
        };
        let mut clean = String::new();
        let mut copied = 0;
        let mut at = 0;
        let given = &text[start..]; // what stands before it is another's
        while let Some((begin, beginning)) = next_beginning(given.as_bytes(), at) {
            let (secret, next) = look_closer(given.as_bytes(), begin, beginning);
            if let Some((from, to)) = secret {
                // Secrets begin and end at ASCII characters, or at the end: never within one.
                if let Some(kept) = given.get(copied..from) {
                    clean.push_str(kept);
                    clean.push_str(SCRUBBED);
                    copied = to;
                }
            }
            at = next.max(begin + 1);
        }
        let mut changed = copied != 0;
        if changed {
            clean.push_str(&given[copied..]);
            text.truncate(start);
            text.push_str(&clean);
        }
        for pattern in patterns {
            if let std::borrow::Cow::Owned(replaced) =
                pattern.replace_all(&text[start..], regex_lite::NoExpand(SCRUBBED))
            {
                text.truncate(start);
                text.push_str(&replaced);
                changed = true;
            }
        }
        changed
    }

    /// A property's value: all of it when the name tells that it is a secret.
    pub fn scrub_property(&self, name: &str, value: &mut String) {
        if matches!(self, Self::Off) {
            return;
        }
        let names = BEGINNINGS.iter().filter(|(_, kind)| matches!(kind, Kind::Name));
        let ends_with = |ending: &str| {
            let start = name.len().checked_sub(ending.len());
            start.is_some_and(|start| name.as_bytes()[start..].eq_ignore_ascii_case(ending.as_bytes()))
        };
        if !value.is_empty() && names.clone().any(|(ending, _)| ends_with(ending)) {
            SCRUBBED.clone_into(value);
        } else if self.is_suspicious(value.as_bytes()) {
            self.scrub(value, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(text: &str) -> String {
        let mut text = text.to_owned();
        let scrubber = Scrubber::On(Vec::new());
        let suspicious = scrubber.is_suspicious(text.as_bytes());
        assert!(scrubber.scrub(&mut text, 0) <= suspicious);
        text
    }

    #[test]
    fn secrets_go() {
        let cases = [
            ("password=hunter2 ok", "password=[scrubbed] ok"),
            ("DB_PASSWORD: 'two words', x", "DB_PASSWORD: '[scrubbed]', x"),
            (r#"{"api_key": "k-1", "n": 2}"#, r#"{"api_key": "[scrubbed]", "n": 2}"#),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [scrubbed]"),
            ("sent bearer AbCdEfGhIjKlMnOp0 today", "sent bearer [scrubbed] today"),
            ("postgres://ann:p%40ss@db:5432/x", "postgres://ann:[scrubbed]@db:5432/x"),
            ("key AKIAIOSFODNN7EXAMPLE.", "key [scrubbed]."),
            ("Server=x;AccountKey=abc==;Y=1", "Server=x;AccountKey=[scrubbed];Y=1"),
            ("secret => s3", "secret => [scrubbed]"),
            ("é password=ü é", "é password=[scrubbed] é"),
            ("t eyJhbGciOiJI.eyJzdWIiOiIx.sig-1 u", "t [scrubbed] u"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----",
                "-----BEGIN RSA PRIVATE KEY-----[scrubbed]-----END RSA PRIVATE KEY-----",
            ),
            ("ghp_012345678901234567890123456789abcdef", "[scrubbed]"),
        ];
        for (text, wanted) in cases {
            assert_eq!(scrubbed(text), wanted);
            assert_eq!(scrubbed(wanted), wanted);
        }
    }

    #[test]
    fn the_rest_stays() {
        for text in [
            "tokens=512 max_tokens: 4",
            "basic authentication",
            "http://host:80/a@b",
            "the password was wrong",
            "token=%s",
            "risk-free task-list and asia",
            "eyJust.a.word",
            "",
            "pw",
        ] {
            assert_eq!(scrubbed(text), text);
        }
    }

    #[test]
    fn any_text_stays_text_and_takes_linear_time() {
        for part in [
            "eyJ",
            "password=",
            "://",
            "://:",
            "-----BEGIN ",
            "bearer ",
            "sk-",
            "é",
            "\"password\": \"",
            "AKIA",
        ] {
            let text = part.repeat(200_000 / part.len());
            scrubbed(&text);
        }
    }
}
