//! One connection: TLS and HTTP/2 of it, and its calls. Driven from outside, it never blocks.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2::server::{Builder, Handshake, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use mio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::call::{Call, News};
use crate::frame::Frame;
use crate::limits::Limits;
use crate::line::Line;
use crate::ready::Signal;
use crate::socket::{Outgoing, Socket};
use crate::status;
use crate::waiting::MAX_KEPT;

/// After so many turns of a connection the others come first.
const MAX_TURNS: usize = 8;

const STREAM_WINDOW: u32 = 1024 * 1024;
const WINDOW: u32 = 4 * 1024 * 1024;
/// Of the headers of one call, names and values together: a token of an identity provider takes some thousand.
const MAX_HEADERS: u32 = 32 * 1024;
/// So many more calls of one connection begin than a server has seats for, in order to be refused with a text.
const SPARE_STREAMS: usize = 128;
/// Calls that callers gave up before they were looked at, and answers to nonsense: beyond, the connection ends.
const MAX_UNSEEN_RESETS: usize = 256;
const MAX_OWN_RESETS: usize = 1024;

/// How long a connection may be silent until it is asked whether it is there, and how long it may take to answer.
#[derive(Clone, Copy)]
pub struct Keepalive {
    pub after: Duration,
    pub patience: Duration,
}

enum Stage {
    Securing(Pin<Box<Accept<Socket>>>),
    Greeting(Box<Handshake<Line, Frame>>),
    Open(Box<h2::server::Connection<Line, Frame>>),
    Ended,
}

pub struct Connection {
    stage: Stage,
    peer: IpAddr,
    signal: Arc<Signal>,
    waker: Waker,
    outgoing: Arc<Outgoing>,
    calls: Vec<Arc<Call>>,
    limits: Arc<Limits>,
    is_stopping: bool,
    ping: Option<PingPong>,
    pinged: Option<Instant>,
    heard: Instant,
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        peer: IpAddr,
        tls: Option<&TlsAcceptor>,
        signal: Arc<Signal>,
        limits: Arc<Limits>,
    ) -> Connection {
        let socket = Socket::new(stream, tls.is_some());
        let outgoing = socket.0.clone();
        let stage = match tls {
            Some(tls) => Stage::Securing(Box::pin(tls.accept(socket))),
            None => greeting(Line::Plain(socket), &limits),
        };
        let waker = Waker::from(signal.clone());
        Connection {
            stage,
            peer,
            signal,
            waker,
            outgoing,
            calls: Vec::new(),
            limits,
            is_stopping: false,
            ping: None,
            pinged: None,
            heard: Instant::now(),
        }
    }

    /// The kernel has news of the socket.
    pub fn note(&self, is_readable: bool, is_writable: bool, is_shut: bool) {
        if is_readable || is_shut {
            self.outgoing.note_readable(is_shut);
        }
        if is_writable {
            self.outgoing.note_writable();
        }
        self.signal.note();
    }

    /// Does what can be done now; false when the connection has ended.
    pub fn drive(&mut self, news: &mut Vec<(Arc<Call>, News)>) -> bool {
        let waker = self.waker.clone();
        let context = &mut Context::from_waker(&waker);
        for _ in 0..MAX_TURNS {
            self.signal.begin();
            self.outgoing.begin();
            // first what there is: calls go on where the kernel takes all of it
            let is_open = self.outgoing.send().is_ok() && self.advance(context, news);
            let is_sent = self.outgoing.send().is_ok();
            if !is_open || !is_sent {
                self.end(news);
                return false;
            }
            if !self.signal.is_noted() {
                break;
            }
        }
        self.signal.end();
        true
    }

    /// Looks after the peer, now and then. False when it isn't there any more, or never said what it wants.
    pub fn look(&mut self, keepalive: Keepalive) -> bool {
        let now = Instant::now();
        self.calls.iter().for_each(|call| call.look(now));
        let Some(ping) = &mut self.ping else {
            return now - self.heard < keepalive.after + keepalive.patience;
        };
        if self.outgoing.was_heard() {
            self.heard = now;
            self.pinged = None;
        }
        // whatever they send meanwhile: what they don't read is held here
        let blocked_for = self
            .outgoing
            .blocked_since()
            .map_or(Duration::ZERO, |since| now - since);
        if blocked_for >= keepalive.after + keepalive.patience + self.limits.patience {
            return false;
        }
        match self.pinged {
            Some(since) => now - since < keepalive.patience,
            None if now - self.heard < keepalive.after => true,
            None => {
                self.pinged = Some(now);
                // fails as long as the ping before is on its way, which then serves as well
                let _ = ping.send_ping(Ping::opaque());
                self.signal.note();
                true
            }
        }
    }

    /// Takes no more calls, and tells the peer.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        match &mut self.stage {
            Stage::Open(connection) => connection.graceful_shutdown(),
            stage => *stage = Stage::Ended,
        }
        self.signal.note();
    }

    /// Nothing is answered, and all that was is with the kernel.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.outgoing.is_idle()
    }

    /// Tells whoever answers that nobody waits for it.
    pub fn end(&mut self, news: &mut Vec<(Arc<Call>, News)>) {
        self.stage = Stage::Ended;
        news.extend(
            self.calls
                .drain(..)
                .filter(|call| call.lose())
                .map(|call| (call, News::Moved)),
        );
    }

    fn advance(&mut self, context: &mut Context<'_>, news: &mut Vec<(Arc<Call>, News)>) -> bool {
        loop {
            match &mut self.stage {
                Stage::Ended => return false,
                Stage::Securing(accept) => match accept.as_mut().poll(context) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(stream)) => self.stage = greeting(Line::Secured(Box::new(stream)), &self.limits),
                    Poll::Ready(Err(_)) => return false,
                },
                Stage::Greeting(handshake) => match Pin::new(handshake.as_mut()).poll(context) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(mut connection)) => {
                        self.ping = connection.ping_pong();
                        self.stage = Stage::Open(Box::new(connection));
                    }
                    Poll::Ready(Err(_)) => return false,
                },
                Stage::Open(connection) => match connection.poll_accept(context) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.take(request, respond),
                    Poll::Ready(_) => return false,
                    Poll::Pending => break,
                },
            }
        }
        self.calls.retain(|call| {
            if let Some(of_call) = call.drive(context) {
                news.push((call.clone(), of_call));
            }
            !call.is_over()
        });
        if let Some(Poll::Ready(Ok(_))) = self.ping.as_mut().map(|ping| ping.poll_pong(context)) {
            self.pinged = None;
        }
        true
    }

    fn take(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Frame>) {
        let (head, receiving) = request.into_parts();
        let kind = head
            .headers
            .get(CONTENT_TYPE)
            .map_or(&b""[..], |value| value.as_bytes());
        let refused = if head.method != Method::POST {
            Some(StatusCode::METHOD_NOT_ALLOWED)
        } else if !kind.starts_with(b"application/grpc") {
            Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        } else {
            None
        };
        if let Some(code) = refused {
            let mut response = Response::new(());
            *response.status_mut() = code;
            // fails only where the caller is gone
            let _ = respond.send_response(response, true);
            return;
        }
        let (signal, limits) = (self.signal.clone(), self.limits.clone());
        let outgoing = &self.outgoing;
        let call = Call::new(head, receiving, respond, self.peer, signal, limits, outgoing);
        if self.is_stopping {
            call.refuse(status::stopping());
        }
        self.calls.push(Arc::new(call));
    }
}

fn greeting(line: Line, limits: &Limits) -> Stage {
    let streams = u32::try_from(limits.max_calls.saturating_add(SPARE_STREAMS)).unwrap_or(u32::MAX);
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(streams)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(MAX_KEPT)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MAX_OWN_RESETS))
        .handshake(line);
    Stage::Greeting(Box::new(handshake))
}
