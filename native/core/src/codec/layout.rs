//! What the records of a stream look like: the declared types, checked once, so that reading a record needs no checks
//! but its length. A type that cannot be read is kept with its reason and harms only the blocks that use it.

use std::collections::{HashMap, HashSet};

use super::cbor::CborReader;
use super::declarations::{read_declarations, TypeDeclaration};
use super::error::{wire_error, Result, WireError};
use super::limits::{MAX_FIELDS_PER_LIST, MAX_FIELDS_PER_TYPE, MAX_METADATA_BYTES, MAX_RECORD_TYPES, MAX_TYPE_DEPTH};
use super::place::{find_reference, Field, FieldValue, Place, PlaceKind};

/// The types of one buffer, by record type index; helper types stand behind the records' own.
#[derive(Debug)]
pub struct RecordTypes {
    types: Vec<RecordType>,
    helpers: HashMap<String, HelperType>,
}

/// Both lists of one stream.
#[derive(Debug)]
pub struct StreamLayout {
    pub dependencies: RecordTypes,
    pub objects: RecordTypes,
}

/// One record type. `size` is `None` when each record carries its own length.
#[derive(Debug)]
pub struct RecordType {
    pub name: String,
    pub size: Option<usize>,
    fields: Result<Vec<Field>>,
}

/// A type known by name: its size, and where the reference lies when it is a handle.
#[derive(Debug)]
struct HelperType {
    size: u64,
    fields: Result<Vec<Field>>,
}

impl RecordType {
    /// The members of a record of fixed size, or why they cannot be read.
    pub fn fields(&self) -> Result<&[Field]> {
        match &self.fields {
            Ok(fields) => Ok(fields),
            Err(error) => Err(error.clone().within(format!("type {}", self.name))),
        }
    }

    /// The member called `name`, if there is one.
    pub fn field(&self, name: &str) -> Result<Option<&Field>> {
        Ok(self.fields()?.iter().find(|field| field.name == name))
    }

    fn required(&self, name: &str, kind: &str, is_kind: impl Fn(&Place) -> bool) -> Result<Place> {
        let Some(field) = self.field(name)? else {
            return Err(wire_error!("type {}: member {name} is missing", self.name));
        };
        match field.place().filter(is_kind) {
            Some(place) => Ok(place),
            None => Err(wire_error!("type {}: member {name} is not {kind}", self.name)),
        }
    }

    pub fn reference_field(&self, name: &str) -> Result<Place> {
        self.required(name, "a reference", Place::is_reference)
    }

    pub fn wide_field(&self, name: &str) -> Result<Place> {
        self.required(name, "an integer of 8 bytes", Place::is_wide)
    }

    pub fn narrow_field(&self, name: &str) -> Result<Place> {
        self.required(name, "u8 or u32", Place::is_narrow)
    }

    pub fn f64_field(&self, name: &str) -> Result<Place> {
        self.required(name, "f64", |place| place.kind == PlaceKind::F64)
    }
}

impl RecordTypes {
    /// Reads the CBOR of one list. Fails only when the list itself cannot be read.
    pub fn parse(metadata: &[u8]) -> Result<Self> {
        if metadata.len() > MAX_METADATA_BYTES {
            return Err(wire_error!(
                "metadata of {} bytes (the limit is {MAX_METADATA_BYTES})",
                metadata.len()
            ));
        }
        Ok(Self::compile(&read_declarations(&mut CborReader::new(metadata))?))
    }

    pub fn compile(declarations: &[TypeDeclaration]) -> Self {
        let mut compiler = Compiler::new(declarations);
        let types = declarations
            .iter()
            .take(MAX_RECORD_TYPES)
            .map(|declaration| RecordType {
                name: declaration.name.clone(),
                size: (declaration.size > 0).then(|| usize::try_from(declaration.size).unwrap_or(usize::MAX)),
                // members of a type without size describe the sender's memory, not the record
                fields: if declaration.size > 0 {
                    compiler.record(declaration)
                } else {
                    Ok(Vec::new())
                },
            })
            .collect();
        let helpers = HELPERS
            .into_iter()
            .filter_map(|name| {
                let declaration = *compiler.by_name.get(name)?;
                Some((
                    name.to_string(),
                    HelperType {
                        size: declaration.size,
                        fields: compiler.record(declaration),
                    },
                ))
            })
            .collect();
        Self { types, helpers }
    }

    #[inline]
    pub fn get(&self, index: usize) -> Result<&RecordType> {
        self.types
            .get(index)
            .ok_or_else(|| wire_error!("record type {index} of {}", self.types.len()))
    }

    pub fn len(&self) -> usize {
        self.types.len()
    }

    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &RecordType> {
        self.types.iter()
    }

    fn helper(&self, name: &str) -> Result<(usize, &[Field])> {
        let helper = self
            .helpers
            .get(name)
            .ok_or_else(|| wire_error!("type {name} is missing"))?;
        match &helper.fields {
            Ok(fields) => Ok((usize::try_from(helper.size).unwrap_or(usize::MAX), fields)),
            Err(error) => Err(error.clone().within(format!("type {name}"))),
        }
    }

    /// Size of the string handle called `name` in bytes, and where its id lies.
    pub fn string_handle(&self, name: &str) -> Result<(usize, Place)> {
        let (size, fields) = self.helper(name)?;
        match find_reference(fields, "id") {
            Some(id) => Ok((size, id)),
            None => Err(wire_error!("type {name}: member id is no reference")),
        }
    }

    /// Size of one record of a property set in bytes, and where its name and its value lie.
    pub fn property(&self) -> Result<(usize, Place, Place)> {
        let (size, fields) = self.helper(PROPERTY)?;
        match (find_reference(fields, "name"), find_reference(fields, "value")) {
            (Some(name), Some(value)) => Ok((size, name, value)),
            _ => Err(wire_error!("type {PROPERTY}: members name and value are no references")),
        }
    }
}

impl StreamLayout {
    pub fn parse(dependencies_metadata: &[u8], objects_metadata: &[u8]) -> Result<Self> {
        Ok(Self {
            dependencies: RecordTypes::parse(dependencies_metadata)
                .map_err(|error| error.within("dependencies_metadata"))?,
            objects: RecordTypes::parse(objects_metadata).map_err(|error| error.within("objects_metadata"))?,
        })
    }
}

const PROPERTY: &str = "Property";
pub const STATIC_STRING_REF: &str = "StaticStringRef";
pub const STRING_ID: &str = "StringId";
const HELPERS: [&str; 3] = [PROPERTY, STATIC_STRING_REF, STRING_ID];

/// Turns declarations into fields, with a budget: a few kilobytes of types that hold one another would otherwise
/// unfold to any size.
struct Compiler<'d> {
    by_name: HashMap<&'d str, &'d TypeDeclaration>,
    fields_left: usize,
}

impl<'d> Compiler<'d> {
    fn new(declarations: &'d [TypeDeclaration]) -> Self {
        let mut by_name = HashMap::new();
        for declaration in declarations {
            // the first of a name counts
            by_name.entry(declaration.name.as_str()).or_insert(declaration);
        }
        Self {
            by_name,
            fields_left: MAX_FIELDS_PER_LIST,
        }
    }

    fn record(&mut self, declaration: &TypeDeclaration) -> Result<Vec<Field>> {
        let mut fields_left = MAX_FIELDS_PER_TYPE.min(self.fields_left);
        let before = fields_left;
        let fields = self.members(declaration, 1, &mut fields_left);
        self.fields_left -= before - fields_left;
        fields
    }

    fn members(&self, declaration: &TypeDeclaration, depth: usize, fields_left: &mut usize) -> Result<Vec<Field>> {
        if depth > MAX_TYPE_DEPTH {
            return Err(wire_error!("types nested deeper than {MAX_TYPE_DEPTH}"));
        }
        let mut fields = Vec::new();
        let mut names = HashSet::new();
        for member in &declaration.members {
            let check_end = |size: u64| match member.offset.checked_add(size) {
                Some(end) if end <= declaration.size => Ok(()),
                _ => Err(wire_error!(
                    "member {}: offset {} and size {size} past the {} bytes of {}",
                    member.name,
                    member.offset,
                    declaration.size,
                    declaration.name
                )),
            };
            let within = |error: WireError| error.within(format!("member {}", member.name));
            *fields_left = fields_left
                .checked_sub(1)
                .ok_or_else(|| wire_error!("too many members"))?;
            check_end(member.size)?;
            // offset ≤ declaration.size, which is the length of a slice wherever a record is read
            let offset = usize::try_from(member.offset).map_err(|_| wire_error!("member {}: offset", member.name))?;
            let value = if member.is_reference {
                if member.size < PlaceKind::Reference.size() {
                    return Err(wire_error!(
                        "member {}: a reference of {} bytes",
                        member.name,
                        member.size
                    ));
                }
                FieldValue::Plain(Place {
                    offset,
                    kind: PlaceKind::Reference,
                })
            } else if let Some(kind) = primitive(&member.type_name) {
                if member.size != kind.size() {
                    let (name, type_name) = (&member.name, &member.type_name);
                    return Err(wire_error!("member {name}: {} bytes for a {type_name}", member.size));
                }
                FieldValue::Plain(Place { offset, kind })
            } else {
                let inner = *self
                    .by_name
                    .get(member.type_name.as_str())
                    .ok_or_else(|| wire_error!("member {}: unknown type {}", member.name, member.type_name))?;
                check_end(inner.size)?;
                let fields = self.members(inner, depth + 1, fields_left).map_err(within)?;
                if inner.is_reference {
                    let id = find_reference(&fields, "id")
                        .ok_or_else(|| wire_error!("member {}: the handle has no reference id", member.name))?;
                    FieldValue::Plain(Place {
                        offset: offset + id.offset,
                        kind: PlaceKind::Reference,
                    })
                } else {
                    FieldValue::Object {
                        offset,
                        type_name: inner.name.clone(),
                        fields,
                    }
                }
            };
            // the first of a name counts
            if names.insert(member.name.as_str()) {
                fields.push(Field {
                    name: member.name.clone(),
                    value,
                });
            }
        }
        Ok(fields)
    }
}

/// The only plain types that senders may use; anything else must be declared in the list.
fn primitive(type_name: &str) -> Option<PlaceKind> {
    match type_name {
        "u8" | "uint8" => Some(PlaceKind::U8),
        "u32" | "uint32" => Some(PlaceKind::U32),
        "u64" | "uint64" => Some(PlaceKind::U64),
        "i64" | "int64" => Some(PlaceKind::I64),
        "f64" => Some(PlaceKind::F64),
        _ => None,
    }
}
