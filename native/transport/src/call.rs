//! One call: the request's messages as they come, the answer's as the window of the reader takes them, the status at the
//! end. Python answers it from the event loop; its connection drives it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Buf;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::HeaderMap;

use crate::frame::{Frame, Incoming, Messages};
use crate::held::held;
use crate::limits::{Limits, Seat};
use crate::ready::Signal;
use crate::socket::Outgoing;
use crate::status::{self, Status};
use crate::waiting::MAX_KEPT;

/// So much of a request is held for Python before the sender has to wait.
const MAX_RECEIVED: usize = 4 * 1024 * 1024;

/// What whoever answers has to hear of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum News {
    Begun,
    /// A message came, the request ended, there is room again, all is sent, or the caller is gone.
    Moved,
}

pub struct Call {
    /// Tells it from all others of the server.
    pub number: u64,
    pub head: Parts,
    pub peer: IpAddr,
    signal: Arc<Signal>,
    limits: Arc<Limits>,
    /// Takes over what HTTP/2 writes of messages. It ends with the connection, not with its calls.
    keeper: Weak<Outgoing>,
    state: Mutex<State>,
}

/// How far a call has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has heard of it yet.
    Arriving,
    /// It is being answered.
    Begun,
    /// Its status is known and follows what was written before.
    Finished,
    /// All is with HTTP/2.
    Done,
    /// The caller left, or the connection ended.
    Gone,
}

struct State {
    stage: Stage,
    seat: Option<Seat>,
    respond: SendResponse<Frame>,
    /// The connection's socket takes nothing now: HTTP/2 gets no more to hold.
    is_blocked: Arc<AtomicBool>,
    /// Once the headers of the answer are sent.
    sending: Option<SendStream<Frame>>,
    /// Waits for the reader's window.
    queue: VecDeque<Frame>,
    trailers: Option<HeaderMap>,
    wants_room: bool,
    is_unary: bool,
    /// As long as more of the request may come.
    receiving: Option<RecvStream>,
    messages: Messages,
    received: VecDeque<Incoming>,
    received_bytes: usize,
    /// What the limits know of.
    counted_bytes: usize,
    has_all: bool,
    touched: Instant,
}

impl Call {
    pub fn new(
        head: Parts,
        receiving: RecvStream,
        respond: SendResponse<Frame>,
        peer: IpAddr,
        signal: Arc<Signal>,
        limits: Arc<Limits>,
        outgoing: &Arc<Outgoing>,
    ) -> Call {
        let state = State {
            stage: Stage::Arriving,
            seat: limits.seat(),
            respond,
            is_blocked: outgoing.is_blocked(),
            sending: None,
            queue: VecDeque::new(),
            trailers: None,
            wants_room: false,
            is_unary: limits.unary_paths.contains(head.uri.path()),
            receiving: Some(receiving),
            messages: Messages::new(limits.max_message_bytes),
            received: VecDeque::new(),
            received_bytes: 0,
            counted_bytes: 0,
            has_all: false,
            touched: Instant::now(),
        };
        let is_too_many = state.seat.is_none();
        let call = Call {
            number: limits.next_number(),
            head,
            peer,
            signal,
            limits,
            keeper: outgoing.keeper(),
            state: Mutex::new(state),
        };
        if is_too_many {
            call.refuse(status::too_many_calls());
        }
        call
    }

    /// Moves bytes in both directions, as far as they go now.
    pub fn drive(&self, context: &mut Context<'_>) -> Option<News> {
        let state = &mut *held(&self.state);
        let before = state.stage;
        let mut moved = state.receive(context, &self.limits).unwrap_or_else(|failure| {
            state.finish(failure);
            true
        });
        moved |= state.send(context);
        state.notice_reset(context);
        state.count(&self.limits);
        moved |= state.stage != before;
        match before {
            Stage::Arriving if state.stage == Stage::Arriving && (state.has_all || !state.is_unary) => {
                state.stage = Stage::Begun;
                Some(News::Begun)
            }
            Stage::Begun | Stage::Finished => moved.then_some(News::Moved),
            _ => None,
        }
    }

    /// Nothing is left to be moved.
    pub fn is_over(&self) -> bool {
        held(&self.state).is_over()
    }

    pub fn is_gone(&self) -> bool {
        held(&self.state).stage == Stage::Gone
    }

    /// The connection ended. True when somebody has to hear of it.
    pub fn lose(&self) -> bool {
        let mut state = held(&self.state);
        let hears = matches!(state.stage, Stage::Begun | Stage::Finished);
        state.leave();
        state.count(&self.limits);
        hears
    }

    /// Ends a call that nobody answers.
    pub fn refuse(&self, status: Status) {
        let mut state = held(&self.state);
        state.finish(status);
        state.count(&self.limits);
        self.signal.note();
    }

    /// Refuses a call whose one message doesn't come.
    pub fn look(&self, now: Instant) {
        let waits = {
            let state = held(&self.state);
            state.stage == Stage::Arriving && now.duration_since(state.touched) > self.limits.patience
        };
        if waits {
            self.refuse(status::stalled(self.limits.patience));
        }
    }

    /// The next message of the request, if it is here.
    pub fn take(&self) -> Option<Incoming> {
        let mut state = held(&self.state);
        let message = state.received.pop_front()?;
        let was_full = state.received_bytes >= MAX_RECEIVED;
        state.received_bytes -= message.body.len();
        state.count(&self.limits);
        if was_full {
            self.signal.note();
        }
        Some(message)
    }

    /// No message will follow those that `take` gives.
    pub fn has_all(&self) -> bool {
        held(&self.state).has_all
    }

    /// Sends the headers of the answer, at most once.
    pub fn start(&self, headers: HeaderMap) {
        held(&self.state).start(headers);
        self.signal.note();
    }

    /// Sends a message after those before.
    pub fn write(&self, frame: Frame) {
        let mut state = held(&self.state);
        if state.stage != Stage::Begun {
            return;
        }
        state.start(HeaderMap::new());
        state.queue.push_back(frame.kept_by(self.keeper.upgrade()));
        state.push();
        state.wants_room = !state.queue.is_empty();
        self.signal.note();
    }

    /// The reader took what was written.
    pub fn has_room(&self) -> bool {
        held(&self.state).queue.is_empty()
    }

    /// Ends the call, after all that was written; only the first end counts. False while some of that waits for the
    /// reader.
    pub fn finish(&self, status: Status) -> bool {
        let mut state = held(&self.state);
        state.finish(status);
        state.count(&self.limits);
        if state.is_over() {
            state.seat = None;
        }
        self.signal.note();
        state.is_over()
    }

    /// Ends the call without what still waits.
    pub fn reset(&self) {
        let mut state = held(&self.state);
        if !state.is_over() {
            match &mut state.sending {
                Some(sending) => sending.send_reset(Reason::ENHANCE_YOUR_CALM),
                None => state.respond.send_reset(Reason::ENHANCE_YOUR_CALM),
            }
            state.leave();
            state.count(&self.limits);
        }
        self.signal.note();
    }
}

impl State {
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Gone)
    }

    /// True when there is something new to take, or nothing more to wait for.
    fn receive(&mut self, context: &mut Context<'_>, limits: &Limits) -> Result<bool, Status> {
        let mut moved = false;
        // one message has a limit of its own
        while self.is_unary || self.received_bytes < MAX_RECEIVED {
            let Some(receiving) = &mut self.receiving else { break };
            match receiving.poll_data(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(bytes))) => {
                    self.touched = Instant::now();
                    self.messages.put(&bytes);
                    // fails where the stream is closed, which is seen below
                    let _ = receiving.flow_control().release_capacity(bytes.len());
                    while let Some(message) = self.messages.next().map_err(status::of_frame_error)? {
                        if self.is_unary && !self.received.is_empty() {
                            return Err(status::too_many_messages());
                        }
                        self.received_bytes += message.body.len();
                        self.received.push_back(message);
                        moved = true;
                    }
                    if !self.count(limits) {
                        return Err(status::too_many_bytes());
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    self.leave();
                    break;
                }
                Poll::Ready(None) => {
                    self.receiving = None;
                    self.messages.end().map_err(status::of_frame_error)?;
                    if self.is_unary && self.received.is_empty() {
                        return Err(status::no_message());
                    }
                    self.has_all = true;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// True when there is room again for somebody who waits for it.
    fn send(&mut self, context: &mut Context<'_>) -> bool {
        while !self.queue.is_empty() || self.trailers.is_some() {
            let has_pushed = self.push();
            if has_pushed || self.queue.is_empty() || self.is_blocked.load(Ordering::Relaxed) {
                break;
            }
            let Some(sending) = &mut self.sending else { break };
            match sending.poll_capacity(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => {
                    self.leave();
                    break;
                }
            }
        }
        self.queue.is_empty() && std::mem::take(&mut self.wants_room)
    }

    /// Gives HTTP/2 what the window takes now. True when it took some of it: the connection has another turn then.
    fn push(&mut self) -> bool {
        let Some(sending) = &mut self.sending else { return false };
        let mut has_pushed = false;
        while !self.is_blocked.load(Ordering::Relaxed) {
            let Some(mut frame) = self.queue.pop_front() else { break };
            // Frames of HTTP/2 cost both sides: none should hold just what others left room for. When those are sent,
            // whatever room there is counts.
            let length = frame.remaining().min(MAX_KEPT);
            sending.reserve_capacity(length);
            let room = sending.capacity();
            if room == 0 || (room < length && has_pushed) {
                self.queue.push_front(frame);
                return has_pushed;
            }
            let part = frame.split_to(room.min(length));
            if frame.has_remaining() {
                self.queue.push_front(frame);
            }
            if sending.send_data(part, false).is_err() {
                self.leave();
                return false;
            }
            has_pushed = true;
        }
        // an answer of which the kernel doesn't take the rest keeps its place
        if !self.queue.is_empty() || self.is_blocked.load(Ordering::Relaxed) {
            return has_pushed;
        }
        if let Some(trailers) = self.trailers.take() {
            // fails only where the caller is gone, who needs none
            let _ = sending.send_trailers(trailers);
            self.end(Stage::Done);
        }
        has_pushed
    }

    fn notice_reset(&mut self, context: &mut Context<'_>) {
        if self.is_over() {
            return;
        }
        let reset = match &mut self.sending {
            Some(sending) => sending.poll_reset(context),
            None => self.respond.poll_reset(context),
        };
        if reset.is_ready() {
            self.leave();
        }
    }

    fn start(&mut self, headers: HeaderMap) {
        if self.sending.is_some() || self.stage != Stage::Begun {
            return;
        }
        match self.respond.send_response(status::head(headers), false) {
            Ok(sending) => self.sending = Some(sending),
            Err(_) => self.leave(),
        }
    }

    fn finish(&mut self, status: Status) {
        if !matches!(self.stage, Stage::Arriving | Stage::Begun) {
            return;
        }
        self.stage = Stage::Finished;
        // what the caller still sends is refused by HTTP/2 itself
        self.forget_request();
        if self.sending.is_some() {
            self.trailers = Some(status.headers());
            self.push();
        } else {
            // headers and status in one; fails only where the caller is gone
            let _ = self.respond.send_response(status::head(status.headers()), true);
            self.end(Stage::Done);
        }
    }

    /// Nothing is kept for a caller that is gone.
    fn leave(&mut self) {
        if !self.is_over() {
            self.end(Stage::Gone);
        }
        self.queue.clear();
        self.forget_request();
    }

    /// A call that is answered keeps its seat until whoever answers is done with it.
    fn end(&mut self, stage: Stage) {
        if self.stage != Stage::Begun {
            self.seat = None;
        }
        self.stage = stage;
    }

    fn forget_request(&mut self) {
        self.receiving = None;
        self.received.clear();
        self.received_bytes = 0;
        self.messages.clear();
    }

    /// Tells the limits what is held of the request; false when it is too much.
    fn count(&mut self, limits: &Limits) -> bool {
        let bytes = self.messages.held_bytes() + self.received_bytes;
        limits.hold(std::mem::replace(&mut self.counted_bytes, bytes), bytes)
    }
}
