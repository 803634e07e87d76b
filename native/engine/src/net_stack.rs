//! How network events nest: the open spans of one stream, and what closing one of them says. Knows no Arrow and no
//! wire format. Ends that fit nothing are ignored, as blocks get lost on their way; nothing here is an error.

/// Where a span or property lies in the replicated data of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connection,
    Object,
    Rpc,
    Property,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Connection, Self::Object, Self::Rpc, Self::Property];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Object => "object",
            Self::Rpc => "rpc",
            Self::Property => "property",
        }
    }
}

/// A span that has begun. `name` and `connection` are the caller's handles of texts.
#[derive(Clone, Copy, Debug)]
pub struct OpenSpan {
    pub span_id: i64,
    pub kind: Kind,
    pub name: i32,
    pub connection: i32,
    pub is_outgoing: bool,
    pub begin_time: i64,
    pub begin_bits: i64,
    /// Bits of the children that ended.
    pub consumed_bits: i64,
}

/// A span that is over, or a property, which has no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSpan {
    pub span_id: i64,
    /// −1 without a parent.
    pub parent_span_id: i64,
    pub depth: u32,
    pub kind: Kind,
    pub name: i32,
    pub connection: i32,
    pub is_outgoing: bool,
    pub begin_bits: i64,
    pub bit_size: i64,
    pub begin_time: i64,
    pub end_time: i64,
}

/// The spans of one stream that have begun and not ended, outermost first.
#[derive(Default)]
pub struct NetStack {
    open: Vec<OpenSpan>,
}

impl NetStack {
    /// Open spans, for a caller whose handles of texts change.
    pub fn open_mut(&mut self) -> impl Iterator<Item = &mut OpenSpan> {
        self.open.iter_mut()
    }

    /// Opens a span again as it was.
    pub fn reopen(&mut self, span: OpenSpan) {
        self.open.push(span);
    }

    pub fn open(&self) -> &[OpenSpan] {
        &self.open
    }

    /// Connection and direction that events inherit from the outermost span; None when nothing is open.
    pub fn connection(&self) -> Option<(i32, bool)> {
        self.open.first().map(|span| (span.connection, span.is_outgoing))
    }

    /// A span begins within the innermost open one.
    pub fn begin(&mut self, span_id: i64, kind: Kind, name: i32, (connection, is_outgoing): (i32, bool), time: i64) {
        self.open.push(OpenSpan {
            span_id,
            kind,
            name,
            connection,
            is_outgoing,
            begin_time: time,
            begin_bits: self.position(),
            consumed_bits: 0,
        });
    }

    /// The innermost open span ends; None when nothing is open or that span is of another kind.
    pub fn end(&mut self, kind: Kind, bit_size: u32, time: i64) -> Option<ClosedSpan> {
        if self.open.last()?.kind != kind {
            return None;
        }
        let span = self.open.pop()?;
        self.consume(bit_size);
        Some(ClosedSpan {
            span_id: span.span_id,
            parent_span_id: self.parent_span_id(),
            depth: self.open.len() as u32,
            kind,
            name: span.name,
            connection: span.connection,
            is_outgoing: span.is_outgoing,
            begin_bits: span.begin_bits,
            bit_size: i64::from(bit_size),
            begin_time: span.begin_time,
            end_time: time,
        })
    }

    /// A property of the innermost open span.
    pub fn property(
        &mut self,
        span_id: i64,
        name: i32,
        (connection, is_outgoing): (i32, bool),
        bit_size: u32,
        time: i64,
    ) -> ClosedSpan {
        let begin_bits = self.position();
        self.consume(bit_size);
        ClosedSpan {
            span_id,
            parent_span_id: self.parent_span_id(),
            depth: self.open.len() as u32,
            kind: Kind::Property,
            name,
            connection,
            is_outgoing,
            begin_bits,
            bit_size: i64::from(bit_size),
            begin_time: time,
            end_time: time,
        }
    }

    fn parent_span_id(&self) -> i64 {
        self.open.last().map_or(-1, |parent| parent.span_id)
    }

    fn position(&self) -> i64 {
        self.open.last().map_or(0, |parent| parent.consumed_bits)
    }

    fn consume(&mut self, bits: u32) {
        if let Some(parent) = self.open.last_mut() {
            parent.consumed_bits = parent.consumed_bits.saturating_add(i64::from(bits));
        }
    }
}
