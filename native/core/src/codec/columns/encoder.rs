//! From the records of a block to its columns.

use super::super::bytes::ByteReader;
use super::super::error::{wire_error, Result};
use super::super::layout::{RecordTypes, StreamLayout};
use super::super::place::PlaceKind;
use super::super::records::Records;
use super::body::BodyWriter;
use super::decimals::write_floats;
use super::integers::{groups_until, write_integers, Groups, Sign};
use super::log_columns::LogColumns;
use super::references::ReferenceColumn;
use super::segments::SegmentWriter;
use super::shape::{shapes, Buffer, Part, Shape};
use super::texts::{write_texts, Dictionary};
use super::values::{ValueColumns, MAX_GROUPS};

/// How many of the open begins are looked at for the one that an end ends.
pub const MAX_DISTANCE: usize = 64;

/// Encodes the blocks of streams of one layout.
pub struct Encoder {
    layout: StreamLayout,
    dependencies: Vec<Shape>,
    objects: Vec<Shape>,
    /// Records of each type in the last block: the next one's columns are made that large.
    counts: [Vec<usize>; 2],
    body: BodyWriter,
    segments: SegmentWriter,
}

impl Encoder {
    pub fn new(layout: StreamLayout) -> Self {
        Self {
            dependencies: shapes(&layout.dependencies, Buffer::Dependencies),
            objects: shapes(&layout.objects, Buffer::Objects),
            layout,
            counts: Default::default(),
            body: BodyWriter::default(),
            segments: SegmentWriter::default(),
        }
    }

    /// The block in columns, for the payload's `objects`; its `dependencies` must then be empty. Bytes that no reader
    /// reads (padding, all but the id of a handle) come back as zeros, all others as they are.
    ///
    /// Errors: a buffer that cannot be cut into records.
    pub fn encode(&mut self, dependencies: &[u8], objects: &[u8]) -> Result<Vec<u8>> {
        self.body.clear();
        self.write_dependencies(dependencies)?;
        write_buffer(
            &self.layout.objects,
            &self.objects,
            objects,
            &mut self.counts[1],
            &mut self.body,
        )
        .map_err(|error| error.within("objects"))?;
        Ok(self.segments.write(&self.body))
    }

    /// The same of a log block whose events are in columns already.
    pub fn encode_log(
        &mut self,
        dependencies: &[u8],
        objects: &LogColumns,
        messages: &[u8],
        texts: &mut Dictionary,
    ) -> Result<Vec<u8>> {
        self.body.clear();
        self.write_dependencies(dependencies)?;
        objects.write(messages, texts, &mut self.body);
        Ok(self.segments.write(&self.body))
    }

    fn write_dependencies(&mut self, dependencies: &[u8]) -> Result<()> {
        let types = &self.layout.dependencies;
        write_buffer(
            types,
            &self.dependencies,
            dependencies,
            &mut self.counts[0],
            &mut self.body,
        )
        .map_err(|error| error.within("dependencies"))
    }
}

/// The columns of one type in one block.
struct TypeColumns<'a> {
    columns: Vec<Column<'a>>,
    /// For a type that ends what another begins: how many begins are open since the one that it ends, or 0.
    distances: Vec<u64>,
    /// Body by body, of a type without columns.
    bytes: Vec<&'a [u8]>,
    is_bytes: bool,
    /// Bodies of begins without an end so far, of a type that has ends.
    open: Vec<&'a [u8]>,
    has_ends: bool,
    count: usize,
}

enum Column<'a> {
    Integers(Vec<u64>, PlaceKind),
    Running(Vec<u64>),
    References(ReferenceColumn),
    Texts(Vec<u64>, Vec<&'a [u8]>),
    Bytes(Vec<&'a [u8]>),
    Properties(Vec<u64>, ReferenceColumn),
    Values(ValueColumns),
}

impl Column<'_> {
    /// For about so many records.
    fn new(part: Part, count: usize) -> Self {
        match part {
            Part::Running => Self::Running(Vec::with_capacity(count)),
            Part::Plain(PlaceKind::Reference) | Part::Handle { .. } => {
                Self::References(ReferenceColumn::with_capacity(count))
            }
            Part::Plain(kind) => Self::Integers(Vec::with_capacity(count), kind),
            Part::Text => Self::Texts(Vec::with_capacity(count), Vec::with_capacity(count)),
            Part::Blob | Part::Rest => Self::Bytes(Vec::with_capacity(count)),
            Part::Properties { .. } => Self::Properties(Vec::with_capacity(count), ReferenceColumn::default()),
            Part::Values => Self::Values(ValueColumns::with_capacity(count)),
        }
    }
}

fn write_buffer(
    types: &RecordTypes,
    shapes: &[Shape],
    buffer: &[u8],
    counts: &mut Vec<usize>,
    body: &mut BodyWriter,
) -> Result<()> {
    counts.resize(shapes.len(), 0);
    // A type with a record that does not follow its form is kept as bytes: found by trying.
    let mut as_bytes = vec![false; shapes.len()];
    loop {
        match Cutter::cut(types, shapes, &as_bytes, counts, buffer)? {
            Ok(cutter) => {
                *counts = cutter.types.iter().map(|each| each.count).collect();
                cutter.write(body);
                return Ok(());
            }
            Err(malformed) => as_bytes[malformed] = true,
        }
    }
}

/// Cuts records into the columns of their types.
struct Cutter<'a> {
    kinds: Vec<u64>,
    types: Vec<TypeColumns<'a>>,
    /// What the running parts have come to.
    running: u64,
}

impl<'a> Cutter<'a> {
    /// Or the index of a type that has a malformed record.
    fn cut(
        types: &'a RecordTypes,
        shapes: &[Shape],
        as_bytes: &[bool],
        counts: &[usize],
        buffer: &'a [u8],
    ) -> Result<std::result::Result<Self, usize>> {
        let new_columns = |((shape, &as_bytes), &count): ((&Shape, &bool), &usize)| {
            let columns = match shape {
                Shape::Fixed { parts, .. } => parts.iter().map(|(_, part)| Column::new(*part, count)).collect(),
                Shape::Varying(parts) => parts.iter().map(|part| Column::new(*part, count)).collect(),
                Shape::Bytes { .. } => Vec::new(),
            };
            TypeColumns {
                columns,
                distances: Vec::new(),
                bytes: Vec::new(),
                is_bytes: as_bytes || matches!(shape, Shape::Bytes { .. }),
                open: Vec::new(),
                has_ends: false,
                count: 0,
            }
        };
        let mut cutter = Self {
            kinds: Vec::with_capacity(counts.iter().sum()),
            types: shapes.iter().zip(as_bytes).zip(counts).map(new_columns).collect(),
            running: 0,
        };
        for shape in shapes {
            if let Shape::Fixed { begin: Some(begin), .. } = shape {
                cutter.types[*begin].has_ends = true;
            }
        }
        for record in Records::new(types, buffer) {
            let record = record?;
            let index = record.index;
            cutter.kinds.push(record.index as u64);
            cutter.types[index].count += 1;
            if cutter.types[index].is_bytes {
                cutter.types[index].bytes.push(record.body);
                continue;
            }
            match &shapes[index] {
                Shape::Fixed { parts, begin, .. } => cutter.fixed(index, parts, *begin, record.body),
                Shape::Varying(parts) => {
                    if cutter.varying(index, parts, record.body).is_err() {
                        return Ok(Err(index));
                    }
                }
                Shape::Bytes { .. } => {}
            }
        }
        Ok(Ok(cutter))
    }

    fn fixed(&mut self, index: usize, parts: &[(usize, Part)], begin: Option<usize>, record: &'a [u8]) {
        let mut is_told = false;
        if let Some(begin) = begin {
            let open = &mut self.types[begin].open;
            let recent = open.iter().rev().take(MAX_DISTANCE);
            let found = recent.enumerate().find(|(_, begun)| is_same(parts, begun, record));
            let distance = found.map_or(0, |(distance, _)| distance + 1);
            if distance > 0 {
                open.remove(open.len() - distance);
                is_told = true;
            }
            self.types[index].distances.push(distance as u64);
        }
        for ((offset, part), column) in parts.iter().zip(&mut self.types[index].columns) {
            match (part, column) {
                (Part::Running, Column::Running(steps)) => {
                    let value = word(record, *offset);
                    steps.push(value.wrapping_sub(self.running));
                    self.running = value;
                }
                _ if is_told => {}
                (Part::Plain(_), Column::References(column)) => column.push(word(record, *offset)),
                (Part::Plain(kind), Column::Integers(values, _)) => values.push(number(record, *offset, *kind)),
                _ => unreachable!("fixed records have no other parts"),
            }
        }
        if self.types[index].has_ends {
            self.types[index].open.push(record);
        }
    }

    fn varying(&mut self, index: usize, parts: &[Part], record: &'a [u8]) -> Result<()> {
        let columns = &mut self.types[index].columns[..];
        if let [Column::References(sites), Column::References(sets), Column::Running(steps), Column::Values(values)] =
            columns
        {
            // the most frequent one, in one go
            let Some((words, rest)) = record.split_first_chunk::<24>() else {
                return Err(wire_error!("a record of {} bytes", record.len()));
            };
            let [site, set, time] = [0, 8, 16].map(|offset| word(words, offset));
            sites.push(site);
            sets.push(set);
            steps.push(time.wrapping_sub(self.running));
            self.running = time;
            return values.push(rest);
        }
        let mut rest = ByteReader::new(record);
        for (part, column) in parts.iter().zip(columns) {
            match (part, column) {
                (Part::Running, Column::Running(steps)) => {
                    let value = rest.u64()?;
                    steps.push(value.wrapping_sub(self.running));
                    self.running = value;
                }
                (Part::Plain(_), Column::References(column)) => column.push(rest.u64()?),
                (Part::Plain(kind), Column::Integers(values, _)) => {
                    values.push(number(rest.take(kind.size() as usize)?, 0, *kind));
                }
                (Part::Handle { size, id_offset }, Column::References(column)) => {
                    column.push(word(rest.take(*size)?, *id_offset));
                }
                (Part::Text, Column::Texts(codecs, texts)) => {
                    codecs.push(u64::from(rest.u8()?));
                    let length = rest.u32()? as usize;
                    texts.push(rest.take(length)?);
                }
                (Part::Blob, Column::Bytes(blobs)) => {
                    let length = rest.u32()? as usize;
                    blobs.push(rest.take(length)?);
                }
                (Part::Rest, Column::Bytes(rests)) => rests.push(rest.take(rest.rest().len())?),
                (Part::Properties { size, name, value }, Column::Properties(counts, references)) => {
                    let count = rest.u32()? as usize;
                    let bytes = rest.take(count.checked_mul(*size).ok_or_else(|| wire_error!("too many"))?)?;
                    counts.push(count as u64);
                    for property in bytes.chunks_exact(*size) {
                        references.push(word(property, *name));
                        references.push(word(property, *value));
                    }
                }
                (Part::Values, Column::Values(values)) => values.push(rest.rest())?,
                _ => unreachable!("each part has its column"),
            }
        }
        Ok(())
    }

    fn write(self, body: &mut BodyWriter) {
        body.count(self.kinds.len());
        write_integers(&self.kinds, Sign::Unsigned, body);
        for each in self.types.into_iter().filter(|each| each.count > 0) {
            body.byte(u8::from(!each.is_bytes));
            if each.is_bytes {
                write_texts(&each.bytes, body);
                continue;
            }
            if !each.distances.is_empty() {
                write_integers(&each.distances, Sign::Unsigned, body);
            }
            write_columns(each.columns, body);
        }
    }
}

fn write_columns(columns: Vec<Column<'_>>, body: &mut BodyWriter) {
    let mut sites: Option<ReferenceColumn> = None;
    for column in columns {
        match column {
            Column::Running(steps) => write_integers(&steps, Sign::Signed, body),
            Column::References(column) => {
                column.write(body);
                sites = sites.or(Some(column));
            }
            Column::Integers(values, kind) => write_members(&values, kind, sites.as_ref(), body),
            Column::Texts(codecs, texts) => {
                write_integers(&codecs, Sign::Unsigned, body);
                write_texts(&texts, body);
            }
            Column::Bytes(texts) => write_texts(&texts, body),
            Column::Properties(counts, references) => {
                write_integers(&counts, Sign::Unsigned, body);
                references.write(body);
            }
            Column::Values(mut values) => match &sites {
                Some(sites) => values.write(sites.indexes(), sites.distinct(), body),
                None => values.write(&[], 0, body),
            },
        }
    }
}

/// A member's values, those of a site together if that takes less.
fn write_members(values: &[u64], kind: PlaceKind, sites: Option<&ReferenceColumn>, body: &mut BodyWriter) {
    let sign = match kind {
        PlaceKind::I64 => Sign::Signed,
        _ => Sign::Unsigned,
    };
    let can_group = |sites: &&ReferenceColumn| {
        (2..=MAX_GROUPS).contains(&sites.distinct()) && sites.indexes().len() >= 4 * sites.distinct()
    };
    let Some(sites) = sites.filter(can_group) else {
        body.byte(0);
        return match kind {
            PlaceKind::F64 => write_floats(&groups_until(values, &[values.len()]), body),
            _ => write_integers(values, sign, body),
        };
    };
    let together = Groups::choose(groups_until(values, &[values.len()]), sign).bits;
    let (sorted, ends) = by_site(values, sites);
    if kind == PlaceKind::F64 {
        body.byte(1);
        return write_floats(&groups_until(&sorted, &ends), body);
    }
    let groups = Groups::choose(groups_until(&sorted, &ends), sign);
    body.byte(u8::from(groups.bits < together));
    if groups.bits < together {
        groups.write(body);
    } else {
        write_integers(values, sign, body);
    }
}

/// The values of the first site, those of the second …, and where each site's end.
fn by_site(values: &[u64], sites: &ReferenceColumn) -> (Vec<u64>, Vec<usize>) {
    let mut next = vec![0; sites.distinct() + 1];
    for &site in sites.indexes() {
        next[site as usize + 1] += 1;
    }
    for site in 1..next.len() {
        next[site] += next[site - 1];
    }
    let ends = next[1..].to_vec();
    let mut sorted = vec![0; values.len()];
    for (&value, &site) in values.iter().zip(sites.indexes()) {
        let place = &mut next[site as usize];
        sorted[*place] = value;
        *place += 1;
    }
    (sorted, ends)
}

#[inline]
fn word(bytes: &[u8], offset: usize) -> u64 {
    match bytes[offset..].first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}

#[inline]
fn number(bytes: &[u8], offset: usize, kind: PlaceKind) -> u64 {
    match kind {
        PlaceKind::U8 => u64::from(bytes[offset]),
        PlaceKind::U32 => bytes[offset..]
            .first_chunk()
            .map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes))),
        _ => word(bytes, offset),
    }
}

/// Are all parts but the running one the same?
#[inline]
fn is_same(parts: &[(usize, Part)], one: &[u8], other: &[u8]) -> bool {
    parts.iter().all(|(offset, part)| match part {
        Part::Plain(kind) => number(one, *offset, *kind) == number(other, *offset, *kind),
        _ => true,
    })
}
