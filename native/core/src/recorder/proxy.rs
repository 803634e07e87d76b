//! The proxy between the uploader and the server, and who is reached without it.

use std::net::IpAddr;

use super::url::Url;

#[derive(Clone)]
pub struct Proxy {
    pub url: Url,
    /// The value of `proxy-authorization`.
    pub authorization: Option<String>,
}

impl Proxy {
    /// From `http://user:password@host:port`; without a scheme it is http.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let (url, userinfo) = Url::parse(&with_scheme)?;
        let authorization = userinfo
            .map(|userinfo| {
                let decoded =
                    percent_decoded(&userinfo.0).ok_or("a % in its credentials is not followed by two hex digits")?;
                Ok::<_, &'static str>(format!("Basic {}", base64(&decoded)))
            })
            .transpose()?;
        Ok(Self { url, authorization })
    }
}

/// Whether the `NO_PROXY` list names the server: `*`, names (with all that lies below them), addresses, networks
/// (`10.0.0.0/8`), each also with a port.
pub fn is_excepted(no_proxy: &str, server: &Url) -> bool {
    no_proxy.split([',', ' ']).any(|entry| names(entry.trim(), server))
}

fn names(entry: &str, server: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let (place, port) = match entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => match entry.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (entry, None),
        },
    };
    if port.is_some_and(|port| port.parse() != Ok(server.port)) {
        return false;
    }
    if let Ok(address) = server.host.parse::<IpAddr>() {
        return is_in_network(address.to_canonical(), place);
    }
    let name = place.trim_start_matches('*').trim_matches('.').to_ascii_lowercase();
    let host = server.host.trim_end_matches('.');
    !name.is_empty() && (host == name || host.ends_with(&format!(".{name}")))
}

fn is_in_network(address: IpAddr, network: &str) -> bool {
    let (base, bits) = network
        .split_once('/')
        .map_or((network, None), |(base, bits)| (base, Some(bits)));
    let Ok(base) = base.parse::<IpAddr>().map(|base| base.to_canonical()) else {
        return false;
    };
    let (address, base, width) = match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => (u128::from(address.to_bits()), u128::from(base.to_bits()), 32),
        (IpAddr::V6(address), IpAddr::V6(base)) => (address.to_bits(), base.to_bits(), 128),
        _ => return false,
    };
    match bits.map_or(Ok(width), str::parse::<u32>) {
        Ok(0) => true,
        Ok(bits) if bits <= width => (address ^ base) >> (width - bits) == 0,
        _ => false,
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |digit: u8| (digit as char).to_digit(16);
        decoded.push(if byte == b'%' {
            (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
        } else {
            byte
        });
    }
    Some(decoded)
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |group, place| {
            group << 8 | u32::from(*chunk.get(place).unwrap_or(&0))
        });
        for place in 0..4 {
            let sextet = (group >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() {
                ALPHABET[sextet] as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn credentials() {
        let proxy = Proxy::parse("user:p%40ss@proxy.example:3128").ok().unwrap();
        assert_eq!(proxy.url.place(), "proxy.example:3128");
        assert_eq!(proxy.authorization.unwrap(), format!("Basic {}", base64(b"user:p@ss")));
        assert!(Proxy::parse("http://u%4@h").is_err());
        assert!(Proxy::parse("socks5://h").is_err());
    }

    #[test]
    fn exceptions() {
        let excepted = |list: &str, url: &str| is_excepted(list, &Url::parse(url).ok().unwrap().0);
        for (list, url) in [
            ("*", "http://h"),
            ("a.example, Example.COM", "http://www.example.com"),
            (".example.com", "http://example.com"),
            ("*.example.com", "http://x.example.com."),
            ("example.com:8080", "http://example.com:8080"),
            ("10.0.0.0/8", "http://10.200.1.1"),
            ("10.1.2.3", "http://10.1.2.3"),
            ("fd00::/8", "http://[fd12::1]:9000"),
            ("[fd12::1]:9000", "http://[fd12::1]:9000"),
            ("0.0.0.0/0", "http://1.2.3.4"),
        ] {
            assert!(excepted(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "http://h"),
            (",.", "http://h"),
            ("example.com", "http://badexample.com"),
            ("example.com:8080", "http://example.com"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/33", "http://10.0.0.1"),
            ("10.0.0.0/8", "http://10.example"),
            ("0.0.0.1", "http://10.0.0.1"),
        ] {
            assert!(!excepted(list, url), "{list} {url}");
        }
    }
}
