//! As much of HTTP/1.1 as it takes to post a block: one connection that is kept, TLS, a proxy, a deadline for everything.
//!
//! Our own, because what it needs is little and what it must not do is much: no hidden threads, no locks that a fork could
//! leave held, no memory for what a hostile server sends, and errors that tell a person what to do.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::proxy::Proxy;
use super::tls::{explained, tls_error};
use super::tls_stream::TlsStream;
use super::url::Url;

/// More than this before the body is no answer.
const LONGEST_HEAD: usize = 16 << 10;
/// More of a body is not worth reading to keep the connection.
const LONGEST_BODY: usize = 64 << 10;
/// How much of a body is told.
const TOLD_OF_BODY: usize = 300;
/// How long a body may take once its head has come.
const BODY_PATIENCE: Duration = Duration::from_millis(500);
const MOST_INTERIM_ANSWERS: usize = 16;

/// Where requests go.
pub struct Server {
    pub url: Url,
    pub proxy: Option<Proxy>,
    /// For an https server or proxy.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A header's name, in lower case, and its value. Values may be secrets.
pub type Header = (String, String);

pub struct Answer {
    pub status: u16,
    head: Vec<Header>,
    /// The beginning of the body, printable.
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A socket whose reads and writes get what is left of the time.
struct Timed {
    socket: TcpStream,
    deadline: Rc<Cell<Instant>>,
}

impl Timed {
    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.get().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left.max(Duration::from_millis(1))))
    }
}

fn told_as_late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.patience()?)?;
        self.socket.read(buffer).map_err(told_as_late)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.patience()?)?;
        self.socket.write(buffer).map_err(told_as_late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

struct Connection {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    deadline: Rc<Cell<Instant>>,
    encrypted: bool,
    /// Whom it leads to.
    peer: Url,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

/// Why there is no answer.
enum Failure {
    /// Before a byte of an answer came: a kept connection may have been closed by the server in the meantime.
    Early(String),
    Late(String),
}

impl Connection {
    /// Reads more into the buffer; 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // TLS without its farewell: the length of the answer tells whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a kept connection still seems good: nothing has come, above all not its end.
    fn is_open(&self) -> bool {
        if self.socket.set_nonblocking(true).is_err() {
            return false;
        }
        let peeked = self.socket.peek(&mut [0]);
        let blocking_again = self.socket.set_nonblocking(false).is_ok();
        blocking_again
            && match peeked {
                // TLS may talk between answers, HTTP may not
                Ok(count) => count > 0 && self.encrypted,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            }
    }

    fn explain(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            _ => explained(error, &self.peer),
        }
    }

    /// Takes a line without its end from the buffer, reading what is missing.
    fn line(&mut self, room: &mut usize) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                *room = room
                    .checked_sub(line.len())
                    .ok_or("the head of the answer is too long")?;
                let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]);
                return Ok(line.iter().map(|&byte| byte as char).collect());
            }
            if self.buffer.len() > *room {
                return Err("the head of the answer is too long".to_owned());
            }
            match self.fill() {
                Ok(0) => return Err("the connection was closed in the middle of an answer".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(self.explain(&error)),
            }
        }
    }

    /// Status and headers of the next answer that is final, and whether it is of HTTP/1.1.
    fn head(&mut self) -> Result<(u16, Vec<Header>, bool), String> {
        for _ in 0..MOST_INTERIM_ANSWERS {
            let mut room = LONGEST_HEAD;
            let line = self.line(&mut room)?;
            let (status, modern) = status_of(&line).ok_or_else(|| not_http(&line))?;
            let mut head = Vec::new();
            loop {
                let line = self.line(&mut room)?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').ok_or("a header of the answer has no colon")?;
                head.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            match status {
                101 => return Err("the server wants another protocol".to_owned()),
                100..=199 => {}
                _ => return Ok((status, head, modern)),
            }
        }
        Err("the server sends interim answers only".to_owned())
    }

    /// Moves `count` bytes of a body from the buffer to `body`, reading what is missing.
    fn take_bytes(&mut self, mut count: usize, body: &mut Vec<u8>) -> Result<(), String> {
        while count > 0 {
            if self.buffer.is_empty() {
                match self.fill() {
                    Ok(0) => return Err("the connection was closed in the middle of an answer".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(self.explain(&error)),
                }
            }
            let taken = count.min(self.buffer.len());
            body.extend(self.buffer.drain(..taken));
            count -= taken;
        }
        Ok(())
    }

    /// The body, and whether the connection stands at its end. A longer one than is worth it is left where it is.
    fn body(&mut self, status: u16, head: &[Header]) -> Result<(Vec<u8>, bool), String> {
        let header = |name: &str| {
            head.iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
        };
        let mut body = Vec::new();
        if status == 204 || status == 304 {
            return Ok((body, true));
        }
        if let Some(coding) = header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err("the answer is encoded in a way that was not asked for".to_owned());
            }
            loop {
                let mut room = LONGEST_HEAD;
                let line = self.line(&mut room)?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16).map_err(|_| "a chunk of the answer has no size")?;
                if size == 0 {
                    while !self.line(&mut room)?.is_empty() {}
                    return Ok((body, true));
                }
                if size > LONGEST_BODY - body.len() {
                    return Ok((body, false));
                }
                self.take_bytes(size, &mut body)?;
                if !self.line(&mut room)?.is_empty() {
                    return Err("a chunk of the answer is longer than its size".to_owned());
                }
            }
        }
        if let Some(length) = header("content-length") {
            let length: u64 = length.parse().map_err(|_| "the length of the answer is no number")?;
            let told = length.min(TOLD_OF_BODY as u64) as usize;
            if length > LONGEST_BODY as u64 {
                self.take_bytes(told, &mut body)?;
                return Ok((body, false));
            }
            self.take_bytes(length as usize, &mut body)?;
            return Ok((body, true));
        }
        while self.buffer.len() < LONGEST_BODY {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.explain(&error)),
            }
        }
        Ok((std::mem::take(&mut self.buffer), false))
    }
}

/// The status of the first line of an answer, and whether it is of HTTP/1.1.
fn status_of(line: &str) -> Option<(u16, bool)> {
    let (version, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
    let code = rest
        .get(..3)
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    let ends = rest.len() == 3 || rest.as_bytes()[3] == b' ';
    let modern = match version {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    code.parse()
        .ok()
        .filter(|&code| ends && code >= 100)
        .map(|code| (code, modern))
}

fn not_http(line: &str) -> String {
    if line.starts_with("\u{15}\u{3}") {
        "the server speaks TLS: the url should begin with https://".to_owned()
    } else {
        "the answer is not HTTP/1.1".to_owned()
    }
}

/// One connection's worth of requests; each thread has its own.
pub struct Client {
    server: Arc<Server>,
    kept: Option<Connection>,
}

impl Client {
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, kept: None }
    }

    /// Sends a body, waits for the answer until the deadline at most. The error is for people and without secrets.
    pub fn post(&mut self, path: &str, headers: &[Header], body: &[u8], deadline: Instant) -> Result<Answer, String> {
        let head = self.request_head(path, headers, body.len());
        if let Some(connection) = self.kept.take().filter(Connection::is_open) {
            match self.exchange(connection, &head, body, deadline) {
                Err(Failure::Early(_)) => {} // closed while it was idle: a new one will tell
                Err(Failure::Late(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        let connection = self.connect(deadline)?;
        self.exchange(connection, &head, body, deadline)
            .map_err(|(Failure::Early(error) | Failure::Late(error))| error)
    }

    fn request_head(&self, path: &str, headers: &[Header], length: usize) -> Vec<u8> {
        let url = &self.server.url;
        let mut head = String::from("POST ");
        let plain_proxy = self.server.proxy.as_ref().filter(|_| !url.tls);
        if plain_proxy.is_some() {
            head.push_str(&format!("http://{}", url.authority()));
        }
        head.push_str(&format!("{}{path} HTTP/1.1\r\nhost: {}\r\n", url.path, url.authority()));
        if let Some(authorization) = plain_proxy.and_then(|proxy| proxy.authorization.as_ref()) {
            head.push_str(&format!("proxy-authorization: {authorization}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name == "user-agent") {
            head.push_str(concat!(
                "user-agent: micromegas-python/",
                env!("CARGO_PKG_VERSION"),
                "\r\n"
            ));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "accept: */*\r\ncontent-type: application/cbor\r\ncontent-length: {length}\r\n\r\n"
        ));
        head.into_bytes()
    }

    fn exchange(
        &mut self,
        mut connection: Connection,
        head: &[u8],
        body: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        connection.deadline.set(deadline);
        let sent = connection
            .stream
            .write_all(head)
            .and_then(|()| connection.stream.write_all(body));
        let sent = sent.and_then(|()| connection.stream.flush());
        // A server may answer before it has read all, and hang up.
        let came = connection.fill();
        let failure = match (&sent, &came) {
            (_, Ok(1..)) => None,
            // what the peer says is wrong tells more than that it listens no longer
            (_, Err(said)) if tls_error(said).is_some() => Some((connection.explain(said), said.kind())),
            (Err(error), _) | (Ok(()), Err(error)) => Some((connection.explain(error), error.kind())),
            (Ok(()), Ok(_)) => {
                let text = "the connection was closed without an answer".to_owned();
                Some((text, io::ErrorKind::UnexpectedEof))
            }
        };
        match failure {
            Some((text, io::ErrorKind::TimedOut)) => return Err(Failure::Late(text)),
            Some((text, _)) => return Err(Failure::Early(text)),
            None => {}
        }
        let (status, answer_head, modern) = connection.head().map_err(Failure::Late)?;
        // The status is the answer; of a body that ends too early or late, nothing is missed but the connection.
        connection.deadline.set(deadline.min(Instant::now() + BODY_PATIENCE));
        let (answer_body, at_end) = connection.body(status, &answer_head).unwrap_or_default();
        let answer = Answer {
            status,
            head: answer_head,
            text: printable(&answer_body),
        };
        let closes = match answer.header("connection") {
            Some(value) => value.to_ascii_lowercase().contains("close"),
            None => !modern,
        };
        if sent.is_ok() && at_end && !closes && connection.buffer.is_empty() {
            self.kept = Some(connection);
        }
        Ok(answer)
    }

    fn connect(&self, deadline: Instant) -> Result<Connection, String> {
        let Server { url, proxy, tls } = &*self.server;
        let first = proxy.as_ref().map_or(url, |proxy| &proxy.url);
        let socket = dial(first, deadline)?;
        let deadline = Rc::new(Cell::new(deadline));
        let stream = Timed {
            socket: socket.try_clone().map_err(|error| error.to_string())?,
            deadline: Rc::clone(&deadline),
        };
        let mut connection = Connection {
            stream: Box::new(stream),
            socket,
            deadline,
            encrypted: false,
            peer: first.clone(),
            buffer: Vec::new(),
        };
        if let Some(proxy) = proxy {
            if proxy.url.tls {
                connection = encrypted(connection, tls, &proxy.url)?;
            }
            if url.tls {
                tunnel(&mut connection, proxy, url)?;
            }
        }
        if url.tls {
            connection = encrypted(connection, tls, url)?;
        }
        Ok(connection)
    }
}

/// Tries each address of a host in turn.
fn dial(url: &Url, deadline: Instant) -> Result<TcpStream, String> {
    let place = url.place();
    let addresses = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(|error| format!("{place}: {error}"))?;
    let mut addresses: Vec<_> = addresses.collect();
    addresses.dedup();
    let mut last_error = format!("{place}: the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - index) as u32;
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(socket) => {
                // Small requests must not wait for the acknowledgement of the one before.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => last_error = format!("{place}: {error}"),
        }
    }
    Err(last_error)
}

/// Asks a proxy for a connection to the server.
fn tunnel(connection: &mut Connection, proxy: &Proxy, server: &Url) -> Result<(), String> {
    let place = server.place();
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("proxy-authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let told = |error: String| format!("proxy {}: {error}", proxy.url.place());
    connection
        .stream
        .write_all(request.as_bytes())
        .map_err(|error| told(connection.explain(&error)))?;
    let (status, _, _) = connection.head().map_err(told)?;
    match status {
        200..=299 if connection.buffer.is_empty() => Ok(()),
        200..=299 => Err(told("it talks before the server can".to_owned())),
        407 => Err(told("it wants other credentials (status 407)".to_owned())),
        _ => Err(told(format!("no connection to {place}: status {status}"))),
    }
}

/// The same connection, with TLS; the handshake is over.
fn encrypted(connection: Connection, tls: &Option<Arc<ClientConfig>>, url: &Url) -> Result<Connection, String> {
    let config = tls.as_ref().ok_or("https without certificates to trust")?;
    let name = ServerName::try_from(url.host.clone()).map_err(|_| format!("{}: no name of a certificate", url.host))?;
    let session = ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
    let failed = |text: &str| format!("TLS with {}: {text}", url.place());
    let stream = TlsStream::handshake(session, connection.stream).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => failed("the connection was closed in the handshake"),
        io::ErrorKind::TimedOut => failed("no answer in time"),
        _ => explained(&error, url),
    })?;
    Ok(Connection {
        stream: Box::new(stream),
        encrypted: true,
        peer: url.clone(),
        ..connection
    })
}

fn printable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(TOLD_OF_BODY)]);
    text.trim()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}
