//! Where a session's requests go and what they carry, as decided by `init()` and checked before anything is recorded.

use std::sync::Arc;

use super::http::{Header, Server};
use super::proxy::{is_excepted, Proxy};
use super::tls::Trust;
use super::url::Url;

/// Headers that say how a request is made, which is ours to say.
const OURS: [&str; 10] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Holds no lock: forked children share it.
pub struct Endpoint {
    pub server: Arc<Server>,
    pub headers: Vec<Header>,
    /// Whether the program hands over more headers, and renews them: nothing is sent before the first of them.
    pub renewed: bool,
}

/// What `init()` was told and found in the environment. Has no `Debug`: there are secrets in it.
pub struct Wishes {
    pub url: String,
    pub api_key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub renewed: bool,
    /// Given to `init()`: empty for none, whatever the environment says.
    pub proxy: Option<String>,
    pub environment_proxy: Option<String>,
    pub no_proxy: String,
    pub trust: Trust,
}

impl Endpoint {
    /// The error tells what to change, and no secret.
    pub fn new(wishes: Wishes) -> Result<Self, String> {
        let (url, userinfo) = Url::parse(&wishes.url).map_err(|error| {
            // What may be a secret is not repeated.
            let shown = if wishes.url.contains('@') {
                ""
            } else {
                wishes.url.trim()
            };
            format!("telemetry url {shown}: not of the form http://host:port or https://host:port: {error}")
        })?;
        if userinfo.is_some() {
            return Err(format!(
                "telemetry url of {}: credentials in a url get into logs; give them as api_key=, auth= or headers=",
                url.place()
            ));
        }
        let mut headers = Vec::new();
        for (name, value) in wishes.headers {
            headers.push(checked_header(&name, value)?);
        }
        if let Some(api_key) = wishes.api_key.filter(|key| !key.is_empty()) {
            if headers.iter().any(|(name, _)| name == "authorization") {
                return Err("both an api key and an authorization header: only one can be sent".to_owned());
            }
            if !is_value(&api_key) {
                return Err("ingestion api key: only printable ascii is possible".to_owned());
            }
            headers.push(("authorization".to_owned(), format!("Bearer {api_key}")));
        }
        let proxy = match wishes.proxy.as_deref() {
            Some("") => None,
            Some(proxy) => Some(Proxy::parse(proxy).map_err(|error| format!("proxy=: {error}"))?),
            None => match wishes.environment_proxy.as_deref().filter(|proxy| !proxy.is_empty()) {
                Some(proxy) if !url.is_loopback() && !is_excepted(&wishes.no_proxy, &url) => {
                    let proxy = Proxy::parse(proxy).map_err(|error| {
                        format!(
                            "the proxy of the environment: {error}; give another with proxy=, or none with proxy=\"\""
                        )
                    })?;
                    Some(proxy)
                }
                _ => None,
            },
        };
        let encrypts = url.tls || proxy.as_ref().is_some_and(|proxy| proxy.url.tls);
        let tls = encrypts.then(|| wishes.trust.config()).transpose().map_err(|error| {
            format!("certificates: {error}; name a file of certificates with ca_file= or MICROMEGAS_CA_FILE")
        })?;
        Ok(Self {
            server: Arc::new(Server { url, proxy, tls }),
            headers,
            renewed: wishes.renewed,
        })
    }
}

fn is_value(value: &str) -> bool {
    value.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t')
}

/// A header as it is sent. The error does not repeat the value.
pub fn checked_header(name: &str, value: String) -> Result<Header, String> {
    let name = name.to_ascii_lowercase();
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(in_token) {
        return Err("header: its name is no name of a header".to_owned());
    }
    if OURS.contains(&name.as_str()) {
        return Err(format!("header {name}: the recorder's own to say"));
    }
    if !is_value(&value) {
        return Err(format!("the value of header {name} holds more than printable ascii"));
    }
    Ok((name, value.trim().to_owned()))
}
