//! The metadata of a stream as it stands in CBOR: which record types a buffer has, and their members. Read strictly,
//! written in one form only, never interpreted (`layout` does that).

use super::cbor::{CborReader, CborWriter};
use super::error::Result;

const TYPE_KEYS: [&str; 4] = ["name", "size", "members", "is_reference"];
const MEMBER_KEYS: [&str; 5] = ["name", "type_name", "offset", "size", "is_reference"];

/// A user-defined type of a stream. `size` 0 says that each record carries its own length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeDeclaration {
    pub name: String,
    pub size: u64,
    pub members: Vec<MemberDeclaration>,
    pub is_reference: bool,
}

/// `offset` and `size` are in bytes, within the type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberDeclaration {
    pub name: String,
    pub type_name: String,
    pub offset: u64,
    pub size: u64,
    pub is_reference: bool,
}

/// Reads an array of types.
pub fn read_declarations(reader: &mut CborReader<'_>) -> Result<Vec<TypeDeclaration>> {
    let mut declarations = Vec::new();
    let mut items = reader.array()?;
    while reader.more(&mut items)? {
        let declaration = read_type(reader).map_err(|error| error.within(format!("type {}", declarations.len())))?;
        declarations.push(declaration);
    }
    Ok(declarations)
}

fn read_type(reader: &mut CborReader<'_>) -> Result<TypeDeclaration> {
    let mut declaration = TypeDeclaration::default();
    reader.fields(&TYPE_KEYS, |reader, key| {
        match TYPE_KEYS[key] {
            "name" => declaration.name = reader.text()?.into_owned(),
            "size" => declaration.size = reader.number()?,
            "members" => {
                let mut items = reader.array()?;
                while reader.more(&mut items)? {
                    declaration.members.push(read_member(reader)?);
                }
            }
            _ => declaration.is_reference = reader.boolean()?,
        }
        Ok(())
    })?;
    Ok(declaration)
}

fn read_member(reader: &mut CborReader<'_>) -> Result<MemberDeclaration> {
    let mut member = MemberDeclaration::default();
    reader.fields(&MEMBER_KEYS, |reader, key| {
        match MEMBER_KEYS[key] {
            "name" => member.name = reader.text()?.into_owned(),
            "type_name" => member.type_name = reader.text()?.into_owned(),
            "offset" => member.offset = reader.number()?,
            "size" => member.size = reader.number()?,
            _ => member.is_reference = reader.boolean()?,
        }
        Ok(())
    })?;
    Ok(member)
}

/// Writes the array of types that `read_declarations` reads: definite lengths, keys in the order of the fields.
pub fn write_declarations(declarations: &[TypeDeclaration]) -> Vec<u8> {
    let mut writer = CborWriter::default();
    writer.array(declarations.len());
    for declaration in declarations {
        writer.map(TYPE_KEYS.len());
        writer.text("name");
        writer.text(&declaration.name);
        writer.text("size");
        writer.unsigned(declaration.size);
        writer.text("members");
        writer.array(declaration.members.len());
        for member in &declaration.members {
            writer.map(MEMBER_KEYS.len());
            writer.text("name");
            writer.text(&member.name);
            writer.text("type_name");
            writer.text(&member.type_name);
            writer.text("offset");
            writer.unsigned(member.offset);
            writer.text("size");
            writer.unsigned(member.size);
            writer.text("is_reference");
            writer.boolean(member.is_reference);
        }
        writer.text("is_reference");
        writer.boolean(declaration.is_reference);
    }
    writer.into_bytes()
}
