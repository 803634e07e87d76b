//! The address of a server or proxy: `http://host:port/prefix`, taken apart and checked before anything is sent there.

use std::net::{IpAddr, Ipv6Addr};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// Begins with a slash or is empty, never ends with a slash.
    pub path: String,
}

/// What stands before `@`: user and password, as written. Has no `Debug`: it must not get into a text.
pub struct Userinfo(pub String);

impl Url {
    /// The url again, in the one form that equal urls have.
    pub fn text(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("{scheme}://{host}:{}{}", self.port, self.path)
    }

    /// The url, and the credentials in it. The error tells what is wrong with it, without repeating any of it.
    pub fn parse(text: &str) -> Result<(Self, Option<Userinfo>), &'static str> {
        let (scheme, rest) = text.trim().split_once("://").ok_or("no scheme before ://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("the scheme is neither http nor https"),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("only printable ascii without spaces is possible (write other names as xn--…)");
        }
        if rest.contains(['?', '#', '\\', '"', '<', '>']) {
            return Err("a query, a fragment or one of \\ \" < > is in it");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(Userinfo(userinfo.to_owned())), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or("no ] after the address")?;
                let _: Ipv6Addr = address.parse().map_err(|_| "what is in [ ] is no IPv6 address")?;
                (address, port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, Some("")),
            },
        };
        let port = match port.ok_or("something other than a port follows ]")? {
            "" if tls => 443,
            "" => 80,
            port => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err("the port is no number from 1 to 65535"),
            },
        };
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if host.is_empty() {
            return Err("no host in it");
        }
        if !host.contains(':') && !host.bytes().all(in_name) {
            return Err("the host is no name");
        }
        let url = Self {
            tls,
            host: host.to_ascii_lowercase(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        };
        Ok((url, userinfo))
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }

    /// Host and port, always both.
    pub fn place(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// As the `host` header wants it: without a port that goes without saying.
    pub fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            self.bracketed()
        } else {
            self.place()
        }
    }

    /// Whether this machine talks to itself.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => {
                let name = self.host.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).map(|(url, _)| url).unwrap()
    }

    #[test]
    fn taken_apart() {
        let parsed = url(" HTTPS://Host.Example/a/b// ");
        assert_eq!((parsed.tls, parsed.port, parsed.path.as_str()), (true, 443, "/a/b"));
        assert_eq!(parsed.authority(), "host.example");
        assert_eq!(url("http://[::1]:9000").authority(), "[::1]:9000");
        assert_eq!(url("http://[::1]").place(), "[::1]:80");
        assert_eq!(url("http://h:9000/").path, "");
        let (parsed, userinfo) = Url::parse("http://u:p@h:1/x").unwrap();
        assert_eq!((parsed.place().as_str(), userinfo.unwrap().0.as_str()), ("h:1", "u:p"));
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "host:9000",
            "ftp://h",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:65536",
            "http://h:x",
            "http://h h",
            "http://[::1",
            "http://[::1]x",
            "http://[h]",
            "http://h/?q",
            "http://h#f",
            "http://é",
            "http://h\r\nx: y",
            "http://h:80:80",
            "http://a,b",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn loopback() {
        for text in [
            "http://localhost",
            "http://a.localhost.",
            "http://127.8.0.1",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(url(text).is_loopback(), "{text}");
        }
        for text in ["http://localhost.example", "http://128.0.0.1", "http://[::2]"] {
            assert!(!url(text).is_loopback(), "{text}");
        }
    }
}
