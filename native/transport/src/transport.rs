//! All connections of a server. Its file descriptor becomes readable when there is something to do; `drive` does it.

use std::io::{self, ErrorKind};
use std::net::TcpStream as StdStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use tokio_rustls::TlsAcceptor;

use crate::call::{Call, News};
use crate::connection::{Connection, Keepalive};
use crate::limits::Limits;
use crate::ready::{Ready, Signal};

const MAX_EVENTS: usize = 1024;
pub struct Transport {
    poll: Poll,
    events: Events,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    limits: Arc<Limits>,
    keepalive: Keepalive,
    tls: Option<TlsAcceptor>,
}

impl Transport {
    pub fn new(limits: Limits, keepalive: Keepalive) -> io::Result<Transport> {
        Ok(Transport {
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            connections: Vec::new(),
            free: Vec::new(),
            ready: Arc::default(),
            limits: Arc::new(limits),
            keepalive,
            tls: None,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// From now on connections speak TLS with this certificate; those that are there go on as they are.
    pub fn secure(&mut self, tls: TlsAcceptor) {
        self.tls = Some(tls);
    }

    /// Does what there is to do, and asks the kernel for it, too, where `asks`. True when some is left.
    pub fn drive(&mut self, asks: bool, news: &mut Vec<(Arc<Call>, News)>) -> io::Result<bool> {
        if asks {
            self.ask()?;
        }
        for key in self.ready.take() {
            let Some(Some(connection)) = self.connections.get_mut(key) else {
                continue;
            };
            if !connection.drive(news) {
                self.remove(key);
            }
        }
        Ok(!self.ready.is_empty())
    }

    /// Looks after all connections, now and then: peers that are gone without a word, calls that don't go on.
    pub fn look(&mut self, news: &mut Vec<(Arc<Call>, News)>) {
        for key in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[key] else {
                continue;
            };
            if !connection.look(self.keepalive) {
                connection.end(news);
                self.remove(key);
            }
        }
    }

    /// Takes no more calls.
    pub fn stop(&mut self) {
        self.connections.iter_mut().flatten().for_each(Connection::stop);
    }

    /// Nothing is answered, and all that was is with the kernel.
    pub fn is_idle(&self) -> bool {
        self.connections.iter().flatten().all(Connection::is_idle)
    }

    /// Ends all connections.
    pub fn close(&mut self, news: &mut Vec<(Arc<Call>, News)>) {
        self.stop();
        for mut connection in self.connections.drain(..).flatten() {
            connection.end(news);
        }
        self.free.clear();
    }

    fn ask(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            let Token(key) = event.token();
            if let Some(Some(connection)) = self.connections.get(key) {
                let is_shut = event.is_read_closed() || event.is_error();
                connection.note(event.is_readable(), event.is_writable(), is_shut);
            }
        }
        Ok(())
    }

    /// How many there are.
    pub fn connections(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// A connection that is gone already is none.
    pub fn add(&mut self, stream: StdStream) {
        let Ok(peer) = stream.peer_addr() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // small answers must not wait for the acknowledgement of those before
        let _ = stream.set_nodelay(true);
        let mut stream = TcpStream::from_std(stream);
        let key = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self
            .poll
            .registry()
            .register(&mut stream, Token(key), interest)
            .is_err()
        {
            self.free.push(key);
            return;
        }
        let signal = Signal::new(key, self.ready.clone());
        signal.note();
        self.connections[key] = Some(Connection::new(
            stream,
            peer.ip().to_canonical(),
            self.tls.as_ref(),
            signal,
            self.limits.clone(),
        ));
    }

    fn remove(&mut self, key: usize) {
        self.connections[key] = None;
        self.free.push(key);
    }
}
