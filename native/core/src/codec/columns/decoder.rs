//! From columns to the records of a block, as untrusted input: what is made is counted against a cap while it is made.

use super::super::dependencies::Dependencies;
use super::super::error::{wire_error, Result};
use super::super::layout::{RecordTypes, StreamLayout};
use super::super::payload::BlockBuffers;
use super::super::place::PlaceKind;
use super::body::BodyReader;
use super::decimals::{read_floats, Floats};
use super::encoder::MAX_DISTANCE;
use super::integers::{read_groups, read_integers, Integers};
use super::record_writer::RecordWriter;
use super::references::References;
use super::segments::read_segments;
use super::shape::{shapes, Buffer, Part, Shape, TEMPLATE_EVENT};
use super::templates::TemplateEvents;
use super::texts::Texts;
use super::values::{ValueReader, MAX_GROUPS};

/// The two buffers of a block, as records. Events that keep template and values apart come as the log events with texts
/// that they stand for. `cap` bounds each of the buffers and the body of columns, in bytes.
pub fn decode(layout: &StreamLayout, packed: &[u8], cap: usize) -> Result<BlockBuffers> {
    let body = read_segments(packed, cap)?;
    let mut body = BodyReader::new(&body);
    let dependencies = BufferReader::read(&layout.dependencies, Buffer::Dependencies, &mut body, cap)
        .and_then(|reader| reader.records(cap, None))
        .map_err(|error| error.within("dependencies in columns"))?;
    let objects = BufferReader::read(&layout.objects, Buffer::Objects, &mut body, cap)
        .and_then(|reader| {
            body.finish()?;
            if !reader.has(&layout.objects, TEMPLATE_EVENT) {
                return reader.records(cap, None);
            }
            let dependencies = Dependencies::parse(&layout.dependencies, &dependencies)?;
            let mut templates = TemplateEvents::new(&layout.objects, &dependencies, cap)?;
            reader.records(cap, Some(&mut templates))
        })
        .map_err(|error| error.within("objects in columns"))?;
    Ok(BlockBuffers { dependencies, objects })
}

/// The columns of one type.
struct TypeReader<'a> {
    columns: TypeColumns<'a>,
    /// Starts of the bodies of begins without an end so far, of a type that has ends.
    open: Vec<usize>,
    has_ends: bool,
}

enum TypeColumns<'a> {
    Absent,
    Bytes(Texts<'a>),
    Parts {
        columns: Vec<Column<'a>>,
        distances: Option<Integers<'a>>,
    },
}

enum Column<'a> {
    Running(Integers<'a>),
    References(References<'a>),
    Integers(Vec<Integers<'a>>),
    Floats(Vec<Floats<'a>>),
    Texts(Integers<'a>, Texts<'a>),
    Bytes(Texts<'a>),
    Properties(Integers<'a>, References<'a>),
    Values(Box<ValueReader<'a>>),
}

struct BufferReader<'a> {
    count: usize,
    kinds: Integers<'a>,
    shapes: Vec<Shape>,
    types: Vec<TypeReader<'a>>,
}

impl<'a> BufferReader<'a> {
    fn read(types: &RecordTypes, buffer: Buffer, body: &mut BodyReader<'a>, cap: usize) -> Result<Self> {
        let count = body.count(cap, "records")?;
        let kinds = read_integers(count, body)?;
        let shapes = shapes(types, buffer);
        let mut counts = vec![0; shapes.len()];
        let mut all_kinds = kinds.clone();
        for _ in 0..count {
            let kind = all_kinds.next_size()?;
            *counts
                .get_mut(kind)
                .ok_or_else(|| wire_error!("record type {kind} of {}", shapes.len()))? += 1;
        }
        let mut readers: Vec<TypeReader<'a>> = Vec::with_capacity(shapes.len());
        let mut least = 0_usize;
        for (index, (shape, &count)) in shapes.iter().zip(&counts).enumerate() {
            let size = match shape {
                Shape::Fixed { size, .. } | Shape::Bytes { size: Some(size) } => 1_usize.saturating_add(*size),
                _ => 5,
            };
            least = least.saturating_add(size.saturating_mul(count));
            if least > cap {
                return Err(wire_error!("records of more than {cap} bytes"));
            }
            let columns = match count {
                0 => TypeColumns::Absent,
                _ => TypeColumns::read(shape, count, body)
                    .map_err(|error| error.within(format!("type {}", type_name(types, index))))?,
            };
            readers.push(TypeReader {
                columns,
                open: Vec::new(),
                has_ends: false,
            });
        }
        for shape in &shapes {
            if let Shape::Fixed { begin: Some(begin), .. } = shape {
                readers[*begin].has_ends = true;
            }
        }
        Ok(Self {
            count,
            kinds,
            shapes,
            types: readers,
        })
    }

    fn has(&self, types: &RecordTypes, name: &str) -> bool {
        types
            .iter()
            .zip(&self.types)
            .any(|(each, reader)| each.name == name && !matches!(reader.columns, TypeColumns::Absent))
    }

    /// All records, one behind the other.
    fn records(mut self, cap: usize, mut templates: Option<&mut TemplateEvents<'_, '_>>) -> Result<Vec<u8>> {
        let mut records = RecordWriter::new(cap);
        for index in 0..self.count {
            let kind = self.kinds.next_size()?;
            self.record(kind, &mut records, templates.as_deref_mut())
                .map_err(|error| error.within(format!("record {index}")))?;
        }
        Ok(records.bytes)
    }

    fn record(
        &mut self,
        kind: usize,
        records: &mut RecordWriter,
        templates: Option<&mut TemplateEvents<'_, '_>>,
    ) -> Result<()> {
        let start = records.bytes.len();
        records.append(&[kind as u8])?;
        match &self.shapes[kind] {
            Shape::Fixed { size, parts, begin } => {
                let body = records.zeros(*size)?;
                let (one, other) = match begin {
                    Some(begin) => two_of(&mut self.types, kind, *begin),
                    None => (&mut self.types[kind], None),
                };
                one.fixed(parts, other, body, records)?;
                if one.has_ends {
                    one.open.push(body);
                }
            }
            Shape::Bytes { size: Some(size) } => {
                let bytes = self.types[kind].bytes()?;
                if bytes.len() != *size {
                    return Err(wire_error!("{} bytes for a record of {size}", bytes.len()));
                }
                records.append(bytes)?;
            }
            Shape::Varying(_) | Shape::Bytes { size: None } => {
                records.append(&[0; 4])?;
                match (&self.shapes[kind], &mut self.types[kind].columns) {
                    (Shape::Varying(parts), TypeColumns::Parts { columns, .. }) => varying(parts, columns, records)?,
                    _ => records.append(self.types[kind].bytes()?)?,
                }
                records.finish_length(start + 1)?;
                if let Some(templates) = templates.filter(|templates| templates.index == kind) {
                    templates.put_text(records, start)?;
                }
            }
        }
        Ok(())
    }
}

fn type_name(types: &RecordTypes, index: usize) -> &str {
    types.iter().nth(index).map_or("", |each| &each.name)
}

/// The readers of a type and of the type that begins what it ends.
fn two_of<'t, 'a>(
    types: &'t mut [TypeReader<'a>],
    one: usize,
    other: usize,
) -> (&'t mut TypeReader<'a>, Option<&'t mut TypeReader<'a>>) {
    let (before, from) = types.split_at_mut(one.max(other));
    if one < other {
        (&mut before[one], from.first_mut())
    } else {
        (&mut from[0], before.get_mut(other))
    }
}

impl<'a> TypeColumns<'a> {
    fn read(shape: &Shape, count: usize, body: &mut BodyReader<'a>) -> Result<Self> {
        if !body.flag()? {
            return Ok(Self::Bytes(Texts::read(count, body)?));
        }
        let (parts, has_begin): (Vec<Part>, bool) = match shape {
            Shape::Fixed { parts, begin, .. } => (parts.iter().map(|(_, part)| *part).collect(), begin.is_some()),
            Shape::Varying(parts) => (parts.clone(), false),
            Shape::Bytes { .. } => return Err(wire_error!("columns of what has no members")),
        };
        let mut rows = count;
        let mut distances = None;
        if has_begin {
            let all = read_integers(count, body)?;
            let mut each = all.clone();
            rows = 0;
            for _ in 0..count {
                rows += usize::from(each.next()? == 0);
            }
            distances = Some(all);
        }
        let mut columns = Vec::new();
        let mut sites: Option<References<'a>> = None;
        for part in parts {
            let column = match part {
                Part::Running => Column::Running(read_integers(count, body)?),
                Part::Plain(PlaceKind::Reference) | Part::Handle { .. } => {
                    let references = References::read(rows, body)?;
                    sites = sites.or_else(|| Some(references.clone()));
                    Column::References(references)
                }
                Part::Plain(kind) => {
                    let lengths = match (body.flag()?, &sites) {
                        (false, _) => vec![rows],
                        (true, Some(sites)) => rows_by_site(sites.clone(), rows)?,
                        (true, None) => return Err(wire_error!("values by reference where there is none")),
                    };
                    match kind {
                        PlaceKind::F64 => Column::Floats(read_floats(&lengths, body)?),
                        _ => Column::Integers(read_groups(&lengths, body)?),
                    }
                }
                Part::Text => Column::Texts(read_integers(rows, body)?, Texts::read(rows, body)?),
                Part::Blob | Part::Rest => Column::Bytes(Texts::read(rows, body)?),
                Part::Properties { .. } => {
                    let counts = read_integers(rows, body)?;
                    let mut all = counts.clone();
                    let mut total = 0_usize;
                    for _ in 0..rows {
                        total = total.saturating_add(all.next_size()?);
                    }
                    Column::Properties(counts, References::read(total.saturating_mul(2), body)?)
                }
                Part::Values => {
                    let mut sites = sites.clone();
                    let distinct = sites.as_ref().map_or(0, References::distinct);
                    let next_site = || match &mut sites {
                        Some(sites) => Ok(sites.next()?.1),
                        None => Err(wire_error!("values without a call site")),
                    };
                    Column::Values(Box::new(ValueReader::read(rows, distinct, next_site, body)?))
                }
            };
            columns.push(column);
        }
        Ok(Self::Parts { columns, distances })
    }
}

fn rows_by_site(mut sites: References<'_>, rows: usize) -> Result<Vec<usize>> {
    if sites.distinct() > MAX_GROUPS {
        return Err(wire_error!("values in {} groups", sites.distinct()));
    }
    let mut lengths = vec![0; sites.distinct()];
    for _ in 0..rows {
        lengths[sites.next()?.1] += 1;
    }
    Ok(lengths)
}

impl<'a> TypeReader<'a> {
    fn bytes(&mut self) -> Result<&'a [u8]> {
        match &mut self.columns {
            TypeColumns::Bytes(texts) => texts.next(),
            _ => Err(wire_error!("a record without columns")),
        }
    }

    /// Fills in the body at `body`.
    fn fixed(
        &mut self,
        parts: &[(usize, Part)],
        begins: Option<&mut TypeReader<'_>>,
        body: usize,
        records: &mut RecordWriter,
    ) -> Result<()> {
        let TypeColumns::Parts { columns, distances } = &mut self.columns else {
            return Err(wire_error!("bytes of what has members"));
        };
        let distance = match distances {
            Some(distances) => distances.next_size()?,
            None => 0,
        };
        if distance > 0 {
            let open = begins.map(|begins| &mut begins.open);
            let begun = open.filter(|open| distance <= MAX_DISTANCE.min(open.len()));
            let Some(open) = begun else {
                return Err(wire_error!("an end of what has not begun"));
            };
            let begun = open.remove(open.len() - distance);
            for (offset, part) in parts {
                if let Part::Plain(kind) = part {
                    let from = begun + offset;
                    records
                        .bytes
                        .copy_within(from..from + kind.size() as usize, body + offset);
                }
            }
        }
        let mut site = 0;
        let mut has_site = false;
        for ((offset, part), column) in parts.iter().zip(columns) {
            let at = body + offset;
            match (part, column) {
                (Part::Running, Column::Running(steps)) => {
                    let value = records.step(steps)?;
                    records.put(at, &value.to_le_bytes())?;
                }
                _ if distance > 0 => {}
                (_, Column::References(references)) => {
                    let (id, index) = references.next()?;
                    if !has_site {
                        (site, has_site) = (index, true);
                    }
                    records.put(at, &id.to_le_bytes())?;
                }
                (Part::Plain(kind), Column::Integers(groups)) => {
                    let value = of_site(groups, site)?.next()?;
                    records.put_number(at, value, *kind)?;
                }
                (_, Column::Floats(groups)) => {
                    let value = of_site(groups, site)?.next()?;
                    records.put(at, &value.to_le_bytes())?;
                }
                _ => return Err(wire_error!("a column of another kind")),
            }
        }
        Ok(())
    }
}

/// The only group, or that of a site.
#[inline]
fn of_site<T>(groups: &mut [T], site: usize) -> Result<&mut T> {
    let index = if groups.len() == 1 { 0 } else { site };
    groups
        .get_mut(index)
        .ok_or_else(|| wire_error!("a value of reference {index}, which has none"))
}

fn varying(parts: &[Part], columns: &mut [Column<'_>], records: &mut RecordWriter) -> Result<()> {
    let mut site = None;
    for (part, column) in parts.iter().zip(columns) {
        match (part, column) {
            (_, Column::Running(steps)) => {
                let value = records.step(steps)?;
                records.append(&value.to_le_bytes())?;
            }
            (part, Column::References(references)) => {
                let (id, index) = references.next()?;
                site = site.or(Some(index));
                let at = match part {
                    Part::Handle { size, id_offset } => records.zeros(*size)? + id_offset,
                    _ => records.zeros(8)?,
                };
                records.put(at, &id.to_le_bytes())?;
            }
            (Part::Plain(kind), Column::Integers(groups)) => {
                let value = of_site(groups, site.unwrap_or(0))?.next()?;
                let at = records.zeros(kind.size() as usize)?;
                records.put_number(at, value, *kind)?;
            }
            (_, Column::Texts(codecs, texts)) => {
                let codec = codecs.next()?;
                let codec = u8::try_from(codec).map_err(|_| wire_error!("a text of codec {codec}"))?;
                records.append(&[codec])?;
                records.append_with_length(texts.next()?)?;
            }
            (Part::Blob, Column::Bytes(texts)) => records.append_with_length(texts.next()?)?,
            (_, Column::Bytes(texts)) => records.append(texts.next()?)?,
            (Part::Properties { size, name, value }, Column::Properties(counts, references)) => {
                let count = counts.next()?;
                let count = u32::try_from(count).map_err(|_| wire_error!("{count} properties"))?;
                records.append(&count.to_le_bytes())?;
                for _ in 0..count {
                    let at = records.zeros(*size)?;
                    for offset in [name, value] {
                        let (id, _) = references.next()?;
                        records.put(at + offset, &id.to_le_bytes())?;
                    }
                }
            }
            (_, Column::Values(values)) => {
                values.next(site.unwrap_or(0), &mut records.bytes)?;
                records.check()?;
            }
            _ => return Err(wire_error!("a column of another kind")),
        }
    }
    Ok(())
}
