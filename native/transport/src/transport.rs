//! All connections of a server. Its file descriptor becomes readable when there is something to do; `drive` does it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tokio_rustls::TlsAcceptor;

use crate::call::{Call, News};
use crate::connection::{Connection, Keepalive};
use crate::limits::Limits;
use crate::ready::{Ready, Signal};

/// Keys of listening sockets count from here, those of connections from 0.
const FIRST_LISTENER: usize = usize::MAX / 2;
const MAX_EVENTS: usize = 1024;
/// New connections at a time: those that are there come first.
const MAX_ACCEPTED: usize = 64;

pub struct Transport {
    poll: Poll,
    events: Events,
    listeners: Vec<TcpListener>,
    /// There may be somebody to accept.
    accepts: bool,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    limits: Arc<Limits>,
    keepalive: Keepalive,
    tls: Option<TlsAcceptor>,
}

impl Transport {
    pub fn new(sockets: Vec<StdListener>, limits: Limits, keepalive: Keepalive) -> io::Result<Transport> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (number, socket) in sockets.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(socket);
            poll.registry()
                .register(&mut listener, Token(FIRST_LISTENER + number), Interest::READABLE)?;
            listeners.push(listener);
        }
        Ok(Transport {
            poll,
            events: Events::with_capacity(MAX_EVENTS),
            listeners,
            accepts: false,
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
        if self.accepts {
            self.accept();
        }
        for key in self.ready.take() {
            let Some(Some(connection)) = self.connections.get_mut(key) else {
                continue;
            };
            if !connection.drive(news) {
                self.remove(key);
            }
        }
        Ok(self.accepts || !self.ready.is_empty())
    }

    /// Looks after all connections, now and then: peers that are gone without a word, calls that don't go on.
    pub fn look(&mut self, news: &mut Vec<(Arc<Call>, News)>) {
        // the kernel had no file left, perhaps
        self.accepts = !self.listeners.is_empty();
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

    /// Takes no more connections and calls.
    pub fn stop(&mut self) {
        self.listeners.clear();
        self.accepts = false;
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
            if key >= FIRST_LISTENER {
                self.accepts = true;
            } else if let Some(Some(connection)) = self.connections.get(key) {
                let is_shut = event.is_read_closed() || event.is_error();
                connection.note(event.is_readable(), event.is_writable(), is_shut);
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        let mut accepted = Vec::new();
        self.accepts = false;
        for listener in &self.listeners {
            for left in (0..MAX_ACCEPTED).rev() {
                match listener.accept() {
                    Ok((stream, address)) => accepted.push((stream, address.ip())),
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                    // nobody is there, or there is no file left for them: `look` tries again
                    Err(_) => break,
                }
                self.accepts |= left == 0;
            }
        }
        accepted.into_iter().for_each(|(stream, peer)| self.add(stream, peer));
    }

    fn add(&mut self, mut stream: TcpStream, peer: IpAddr) {
        // small answers must not wait for the acknowledgement of those before
        let _ = stream.set_nodelay(true);
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
            peer.to_canonical(),
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
