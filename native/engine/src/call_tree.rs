//! The call tree of a thread, from its begin and end events to rows of `thread_spans` (lakehouse §6.2 and §6.3).
//! It must never fail on events that do not pair up: they are mended or dropped, and counted as anomalies.
//!
//! The blocks of a thread may be read in parts, one builder after the other: a builder goes on from the state that the
//! one before left, and all the parts have together the rows of one builder that read everything. A span is a row of the
//! part in which it ends. Only an end without a begin changes what earlier parts said: it encloses all that its tree
//! holds, so a part is told of those that come [`Later`].

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use xxhash_rust::xxh32::xxh32;

use crate::carried::{StateReader, StateWriter};
use crate::clock::Clock;
use crate::interner::{dictionary, Interner};

/// Id of the root that stands for the thread itself.
pub const ROOT_ID: i64 = -1;
/// Parent of that root.
const NO_PARENT: i64 = 0;
/// Spans that may be open at once: this bounds what each part of a program that never ends its spans carries on.
pub const MAX_OPEN: usize = 1 << 20;

/// Rows of `thread_spans`; none is NULL.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let columns = [
        ("id", DataType::Int64),
        ("parent", DataType::Int64),
        ("depth", DataType::UInt32),
        ("hash", DataType::UInt32),
        ("begin", time.clone()),
        ("end", time),
        ("duration", DataType::Int64),
        ("name", text.clone()),
        ("target", text.clone()),
        ("filename", text),
        ("line", DataType::UInt32),
    ];
    Arc::new(Schema::new(
        columns
            .map(|(name, data_type)| Field::new(name, data_type, false))
            .to_vec(),
    ))
}

/// The same for all occurrences of a scope: xxh32 over name, filename, target and line, each seeded with the one before.
pub fn scope_hash(name: &str, filename: &str, target: &str, line: u32) -> u32 {
    let hash = xxh32(name.as_bytes(), 0);
    let hash = xxh32(filename.as_bytes(), hash);
    let hash = xxh32(target.as_bytes(), hash);
    xxh32(&line.to_le_bytes(), hash)
}

/// A scope known to a [`CallTreeBuilder`]; ids of two builders must not be mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeId(u32);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Scope {
    name: i32,
    target: i32,
    filename: i32,
    line: u32,
    hash: u32,
    /// Equal where the hash is, and dense.
    kind: u32,
}

/// The rows so far, as columns; a row of a span that is still open has a provisional end.
#[derive(Default)]
struct Rows {
    ids: Vec<i64>,
    parents: Vec<i64>,
    depths: Vec<u32>,
    scopes: Vec<ScopeId>,
    begins: Vec<i64>,
    ends: Vec<i64>,
}

/// Ends without a begin that come, in a later part, in the tree that is open at the end of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Later {
    pub count: u32,
    /// Id of the first of them: the innermost.
    pub first_id: i64,
}

/// What a part of a thread's blocks gave.
pub struct Part {
    /// Spans and roots that ended.
    pub rows: RecordBatch,
    /// For the part that follows.
    pub state: Vec<u8>,
    /// Ends without a begin in the tree that was open at the start of the part.
    pub enclosing: Later,
    /// That tree is open at the end, too.
    pub continues: bool,
}

/// A run of blocks without a gap: one tree.
struct Chain {
    begin: i64,
    /// Running maximum of the blocks' ends.
    end: i64,
    /// Time of the last event, below which no later one may fall.
    now: i64,
    first_row: usize,
    /// It was open before the first block of this builder.
    is_carried: bool,
    /// Rows of open spans, outermost first.
    open: Vec<usize>,
    /// Begins that came when as many as may be were open. As they are the innermost, the next ends are theirs.
    unopened: u64,
    enclosing: Vec<Enclosing>,
}

/// A span whose begin was before the chain: it encloses all that came before its end.
struct Enclosing {
    id: i64,
    scope: ScopeId,
    end: i64,
    /// Rows of the chain before this one lie within the span.
    rows_before: usize,
}

/// Builds the trees of one thread.
///
/// Feed it with blocks in the order of (begin_ticks, end_ticks): `begin_block`, then the events of the block in their
/// order. All ticks are absolute, as in events; those of a block are relative and go through [`Clock::absolute`].
/// Memory is about 40 bytes a span, and the text of each scope once; nothing recurses.
pub struct CallTreeBuilder {
    clock: Clock,
    thread_scope: ScopeId,
    names: Interner,
    targets: Interner,
    filenames: Interner,
    scopes: Vec<Scope>,
    scope_ids: HashMap<Scope, ScopeId>,
    /// By hash of a scope: a number for all scopes that have it.
    kinds: HashMap<u32, u32>,
    /// By that number: how many spans are open. An end that fits none of a million is told by it at once.
    open_of_kind: Vec<u32>,
    rows: Rows,
    chain: Option<Chain>,
    /// Ends without a begin in the carried chain, once that is closed.
    carried_enclosing: Later,
    anomalies: u64,
}

impl CallTreeBuilder {
    /// `thread_name` becomes the name of each root.
    pub fn new(thread_name: &str, clock: Clock) -> Self {
        let mut builder = Self {
            clock,
            thread_scope: ScopeId(0),
            names: Interner::new(),
            targets: Interner::new(),
            filenames: Interner::new(),
            scopes: Vec::new(),
            scope_ids: HashMap::new(),
            kinds: HashMap::new(),
            open_of_kind: Vec::new(),
            rows: Rows::default(),
            chain: None,
            carried_enclosing: Later::default(),
            anomalies: 0,
        };
        builder.thread_scope = builder.scope(thread_name, "", "", 0);
        builder
    }

    /// Goes on from the state of the part before.
    pub fn resume(thread_name: &str, state: &[u8]) -> Result<Self, String> {
        let mut reader = StateReader::new(state);
        let clock = Clock::new(reader.wide()?, reader.wide()?, reader.wide()?)?;
        let mut builder = Self::new(thread_name, clock);
        if reader.flag()? {
            let (begin, end, now) = (reader.wide()?, reader.wide()?, reader.wide()?);
            let has_root = reader.flag()?;
            let scopes = (0..reader.count()?)
                .map(|_| {
                    let [name, target, filename] = [reader.text()?, reader.text()?, reader.text()?];
                    Ok(builder.intern(name, target, filename, reader.narrow()?, reader.narrow()?))
                })
                .collect::<Result<Vec<_>, String>>()?;
            if has_root {
                let scope = builder.thread_scope;
                builder.rows.push(ROOT_ID, NO_PARENT, 0, scope, begin, end);
            }
            let mut open = Vec::new();
            let mut parent = ROOT_ID;
            for _ in 0..reader.count()? {
                let (id, begin, scope) = (reader.wide()?, reader.wide()?, reader.narrow()?);
                let scope = scopes
                    .get(scope as usize)
                    .ok_or_else(|| format!("carried state names scope {scope} of {}", scopes.len()))?;
                open.push(builder.rows.ids.len());
                builder.rows.push(id, parent, open.len() as u32, *scope, begin, begin);
                builder.open_of_kind[builder.scopes[scope.0 as usize].kind as usize] += 1;
                parent = id;
            }
            builder.chain = Some(Chain {
                begin,
                end,
                now,
                first_row: 0,
                is_carried: true,
                open,
                unopened: 0,
                enclosing: Vec::new(),
            });
        }
        if !reader.is_at_end() {
            let rates = (0..reader.count()?)
                .map(|_| Ok((reader.wide()?, reader.wide()?, reader.wide()?)))
                .collect::<Result<Vec<_>, String>>()?;
            builder.clock = builder.clock.with_later_rates(&rates)?;
        }
        if let (Some(chain), false) = (&mut builder.chain, reader.is_at_end()) {
            chain.unopened = reader.wide()? as u64;
        }
        reader.end()?;
        Ok(builder)
    }

    /// The id of a scope; the same for equal content. It costs hashing of all texts: keep it per descriptor of a block.
    pub fn scope(&mut self, name: &str, target: &str, filename: &str, line: u32) -> ScopeId {
        let hash = scope_hash(name, filename, target, line);
        self.intern(name.as_bytes(), target.as_bytes(), filename.as_bytes(), line, hash)
    }

    fn intern(&mut self, name: &[u8], target: &[u8], filename: &[u8], line: u32, hash: u32) -> ScopeId {
        let next_kind = self.kinds.len() as u32;
        let kind = *self.kinds.entry(hash).or_insert(next_kind);
        if kind == next_kind {
            self.open_of_kind.push(0);
        }
        let scope = Scope {
            name: self.names.intern(name),
            target: self.targets.intern(target),
            filename: self.filenames.intern(filename),
            line,
            hash,
            kind,
        };
        if let Some(id) = self.scope_ids.get(&scope) {
            return *id;
        }
        let id = ScopeId(self.scopes.len() as u32);
        self.scopes.push(scope);
        self.scope_ids.insert(scope, id);
        id
    }

    /// The clock as the block that follows knows it. It may have got better rates behind the blocks so far; a block
    /// that ends before those knows less.
    pub fn know_clock(&mut self, clock: Clock) {
        if clock.later_rates().len() > self.clock.later_rates().len() {
            self.clock = clock;
        }
    }

    /// A block follows. It starts a new chain, and so a new tree, if it begins after all blocks before it have ended.
    pub fn begin_block(&mut self, begin_ticks: i64, end_ticks: i64) {
        let end_ticks = end_ticks.max(begin_ticks);
        match &mut self.chain {
            Some(chain) if begin_ticks <= chain.end => {
                chain.end = chain.end.max(end_ticks);
            }
            _ => {
                self.close_chain();
                self.chain = Some(Chain {
                    begin: begin_ticks,
                    end: end_ticks,
                    now: begin_ticks,
                    first_row: self.rows.ids.len(),
                    is_carried: false,
                    open: Vec::new(),
                    unopened: 0,
                    enclosing: Vec::new(),
                });
            }
        }
    }

    /// A span begins. `event_id` is the block's object_offset plus the event's index in the block. Where [`MAX_OPEN`] are
    /// open, it is dropped.
    pub fn on_begin(&mut self, ticks: i64, scope: ScopeId, event_id: i64) {
        let Some(now) = self.admit(ticks) else { return };
        self.ensure_root();
        let Some(chain) = &mut self.chain else { return };
        if chain.open.len() >= MAX_OPEN {
            chain.unopened += 1;
            self.anomalies += 1;
            return;
        }
        let parent = chain.open.last().map_or(ROOT_ID, |row| self.rows.ids[*row]);
        chain.open.push(self.rows.ids.len());
        let depth = chain.open.len() as u32;
        self.open_of_kind[self.scopes[scope.0 as usize].kind as usize] += 1;
        self.rows.push(event_id, parent, depth, scope, now, now);
    }

    /// A span ends. It closes the innermost open span of that scope; one whose begin was before
    /// the chain encloses all that the chain holds by now; one that fits no open span is dropped, and so is that of a
    /// begin that was.
    pub fn on_end(&mut self, ticks: i64, scope: ScopeId, event_id: i64) {
        let Some(now) = self.admit(ticks) else { return };
        self.ensure_root();
        let Some(chain) = &mut self.chain else { return };
        if chain.unopened > 0 {
            chain.unopened -= 1;
            return;
        }
        if chain.open.is_empty() {
            // it began before the chain did, so whatever the chain holds by now lies within it
            let rows_before = self.rows.ids.len() - chain.first_row;
            chain.enclosing.push(Enclosing {
                id: event_id,
                scope,
                end: now,
                rows_before,
            });
            return;
        }
        let kind_of = |scope: ScopeId| self.scopes[scope.0 as usize].kind;
        let kind = kind_of(scope);
        // looking through what is open pays for itself only where it ends in closing what was looked at
        let is_open = self.open_of_kind[kind as usize] > 0;
        let matching = || {
            chain
                .open
                .iter()
                .rposition(|row| kind_of(self.rows.scopes[*row]) == kind)
        };
        let Some(position) = is_open.then(matching).flatten() else {
            self.anomalies += 1;
            return;
        };
        // spans above the matching one have lost their end: they can't outlast the one that they lie in
        self.anomalies += (chain.open.len() - position - 1) as u64;
        for row in chain.open.drain(position..) {
            self.rows.ends[row] = now;
            self.open_of_kind[kind_of(self.rows.scopes[row]) as usize] -= 1;
        }
    }

    /// Events that did not fit: outside of the time of their blocks, back in time, ends that close nothing, begins
    /// without an end inside of a closed span, or too deep. Spans cut by the start or the end of a chain are none.
    pub fn anomalies(&self) -> u64 {
        self.anomalies
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows.ids.len() + self.chain.as_ref().map_or(0, |chain| chain.enclosing.len())
    }

    /// All trees, each in pre-order, in the order of time; begins never decrease.
    pub fn finish(mut self) -> Result<RecordBatch, String> {
        self.close_chain();
        self.into_batch()
    }

    /// The rows of all that ended, in the order of `finish`, and what goes on. `later` is about the parts behind.
    pub fn finish_part(mut self, later: Later) -> Result<Part, String> {
        let state = self.state();
        let mut enclosing = self.carried_enclosing;
        let mut continues = false;
        if let Some(mut chain) = self.chain.take() {
            if chain.is_carried {
                enclosing = chain.enclosed();
                continues = true;
            }
            if chain.first_row < self.rows.ids.len() {
                self.rows.enclose(&chain, later);
                for row in &mut chain.open {
                    *row += chain.enclosing.len();
                }
                chain.open.insert(0, chain.first_row);
                self.rows.remove(&chain.open);
            }
        }
        Ok(Part {
            rows: self.into_batch()?,
            state,
            enclosing,
            continues,
        })
    }

    /// The clock, the open tree, and its open spans with their scopes.
    fn state(&self) -> Vec<u8> {
        let mut writer = StateWriter::default();
        for value in self.clock.parts() {
            writer.wide(value);
        }
        writer.flag(self.chain.is_some());
        if let Some(chain) = &self.chain {
            for value in [chain.begin, chain.end, chain.now] {
                writer.wide(value);
            }
            writer.flag(chain.first_row < self.rows.ids.len());
            let mut indices: HashMap<ScopeId, u32> = HashMap::new();
            let mut scopes = Vec::new();
            for row in &chain.open {
                let id = self.rows.scopes[*row];
                indices.entry(id).or_insert_with(|| {
                    scopes.push(id);
                    scopes.len() as u32 - 1
                });
            }
            writer.count(scopes.len());
            for id in scopes {
                let scope = &self.scopes[id.0 as usize];
                writer.text(self.names.value(scope.name));
                writer.text(self.targets.value(scope.target));
                writer.text(self.filenames.value(scope.filename));
                writer.narrow(scope.line);
                writer.narrow(scope.hash);
            }
            writer.count(chain.open.len());
            for row in &chain.open {
                writer.wide(self.rows.ids[*row]);
                writer.wide(self.rows.begins[*row]);
                writer.narrow(indices[&self.rows.scopes[*row]]);
            }
        }
        // behind all else and only where there are any, so that states of before there were rates are read, too
        let unopened = self.chain.as_ref().map_or(0, |chain| chain.unopened);
        if self.clock.later_rates().len() > 0 || unopened > 0 {
            writer.count(self.clock.later_rates().len());
            for (ticks, time, frequency) in self.clock.later_rates() {
                for value in [ticks, time, frequency] {
                    writer.wide(value);
                }
            }
        }
        if unopened > 0 {
            writer.wide(unopened as i64);
        }
        writer.into_bytes()
    }

    fn into_batch(self) -> Result<RecordBatch, String> {
        let Self {
            clock,
            mut names,
            mut targets,
            mut filenames,
            scopes,
            rows,
            ..
        } = self;
        let time_of = |ticks: &i64| clock.time_of(*ticks);
        let begins: Vec<i64> = rows.begins.iter().map(time_of).collect();
        let ends: Vec<i64> = rows.ends.iter().map(time_of).collect();
        let durations = begins.iter().zip(&ends).map(|(begin, end)| end.saturating_sub(*begin));
        let durations: Int64Array = durations.collect::<Vec<_>>().into();
        let of_scope = |get: fn(&Scope) -> i32| -> Vec<i32> {
            rows.scopes.iter().map(|scope| get(&scopes[scope.0 as usize])).collect()
        };
        let of_scope_u32 = |get: fn(&Scope) -> u32| -> ArrayRef {
            let values = rows.scopes.iter().map(|scope| get(&scopes[scope.0 as usize]));
            Arc::new(UInt32Array::from(values.collect::<Vec<_>>()))
        };
        let name_keys = of_scope(|scope| scope.name);
        let target_keys = of_scope(|scope| scope.target);
        let filename_keys = of_scope(|scope| scope.filename);
        let hashes = of_scope_u32(|scope| scope.hash);
        let lines = of_scope_u32(|scope| scope.line);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(rows.ids)),
            Arc::new(Int64Array::from(rows.parents)),
            Arc::new(UInt32Array::from(rows.depths)),
            hashes,
            Arc::new(TimestampNanosecondArray::from(begins).with_timezone("+00:00")),
            Arc::new(TimestampNanosecondArray::from(ends).with_timezone("+00:00")),
            Arc::new(durations),
            dictionary(name_keys, Arc::new(names.take_strings("thread_spans.name")?))?,
            dictionary(target_keys, Arc::new(targets.take_strings("thread_spans.target")?))?,
            dictionary(
                filename_keys,
                Arc::new(filenames.take_strings("thread_spans.filename")?),
            )?,
            lines,
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }

    /// The time at which an event counts: its own, within what is known of its chain and never back. None before the
    /// first block. An event outside would end spans that the thread was still in, or give a negative duration, but it
    /// did happen: dropping it would break the pairs around it.
    fn admit(&mut self, ticks: i64) -> Option<i64> {
        let chain = self.chain.as_mut()?;
        let counted = ticks.clamp(chain.now, chain.end);
        self.anomalies += u64::from(counted != ticks);
        chain.now = counted;
        Some(counted)
    }

    /// The root of the chain comes with its first event, so that a chain without any gives no row.
    fn ensure_root(&mut self) {
        if let Some(chain) = &self.chain {
            if chain.first_row == self.rows.ids.len() {
                self.rows
                    .push(ROOT_ID, NO_PARENT, 0, self.thread_scope, chain.begin, chain.end);
            }
        }
    }

    fn close_chain(&mut self) {
        let Some(chain) = self.chain.take() else { return };
        if chain.is_carried {
            self.carried_enclosing = chain.enclosed();
        }
        if chain.first_row == self.rows.ids.len() {
            return;
        }
        self.rows.ends[chain.first_row] = chain.end;
        for row in &chain.open {
            self.rows.ends[*row] = chain.end;
            self.open_of_kind[self.scopes[self.rows.scopes[*row].0 as usize].kind as usize] -= 1;
        }
        self.rows.enclose(&chain, Later::default());
    }
}

impl Chain {
    fn enclosed(&self) -> Later {
        Later {
            count: self.enclosing.len() as u32,
            first_id: self.enclosing.first().map_or(0, |span| span.id),
        }
    }
}

impl Rows {
    fn push(&mut self, id: i64, parent: i64, depth: u32, scope: ScopeId, begin: i64, end: i64) {
        self.ids.push(id);
        self.parents.push(parent);
        self.depths.push(depth);
        self.scopes.push(scope);
        self.begins.push(begin);
        self.ends.push(end);
    }

    /// Puts the spans that enclose a chain's start between its root and the rest, the last ended outermost; those of
    /// later parts are between them and the root, without a row here.
    fn enclose(&mut self, chain: &Chain, later: Later) {
        let enclosing = &chain.enclosing;
        let count = enclosing.len();
        let outermost_parent = if later.count > 0 { later.first_id } else { ROOT_ID };
        let mut segment_start = chain.first_row + 1;
        let mut lift = |begin: usize, end: usize, parent: i64, levels: u32| {
            for row in begin..end {
                if self.depths[row] == 1 {
                    self.parents[row] = parent;
                }
                self.depths[row] += levels;
            }
        };
        for (index, span) in enclosing.iter().enumerate() {
            let segment_end = chain.first_row + span.rows_before;
            lift(
                segment_start,
                segment_end,
                span.id,
                (count - index) as u32 + later.count,
            );
            segment_start = segment_end;
        }
        if later.count > 0 {
            lift(segment_start, self.ids.len(), later.first_id, later.count);
        }
        let at = chain.first_row + 1;
        let outermost_first = || enclosing.iter().rev();
        let parents = std::iter::once(outermost_parent)
            .chain(outermost_first().map(|span| span.id))
            .take(count);
        let depths = (1..=count as u32).map(|depth| depth + later.count);
        self.ids.splice(at..at, outermost_first().map(|span| span.id));
        self.parents.splice(at..at, parents);
        self.depths.splice(at..at, depths);
        self.scopes.splice(at..at, outermost_first().map(|span| span.scope));
        self.begins.splice(at..at, std::iter::repeat_n(chain.begin, count));
        self.ends.splice(at..at, outermost_first().map(|span| span.end));
    }

    /// Leaves out the rows at `places`, which rise.
    fn remove(&mut self, places: &[usize]) {
        fn without<T: Copy>(values: &mut Vec<T>, places: &[usize]) {
            let mut kept = Vec::with_capacity(values.len() - places.len());
            let mut start = 0;
            for place in places {
                kept.extend_from_slice(&values[start..*place]);
                start = place + 1;
            }
            kept.extend_from_slice(&values[start..]);
            *values = kept;
        }
        without(&mut self.ids, places);
        without(&mut self.parents, places);
        without(&mut self.depths, places);
        without(&mut self.scopes, places);
        without(&mut self.begins, places);
        without(&mut self.ends, places);
    }
}
