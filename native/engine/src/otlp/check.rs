//! Whether bytes are the message that a table describes, all the way down. Allocates nothing.

use micromegas_core::codec::{Result, WireError};

use super::reader::{Fields, Wire, BYTES, FIXED32, FIXED64};
use super::schema::{Kind, Label, Message};
use super::MAX_DEPTH;

/// Fails with the path to what is wrong.
pub fn check(message: &Message, bytes: &[u8]) -> Result<()> {
    check_at(message, bytes, 0)
}

fn check_at(message: &Message, bytes: &[u8], depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(WireError::new(format!(
            "messages lie in one another deeper than {MAX_DEPTH}"
        )));
    }
    for field in Fields::new(bytes) {
        let (number, wire) = field.map_err(|error| error.within(message.name))?;
        let Some(known) = message.field(number) else {
            continue;
        };
        let checked = match (known.kind, wire) {
            (Kind::Message(inner), Wire::Bytes(bytes)) => check_at(inner, bytes, depth + 1),
            (Kind::Text, Wire::Bytes(_)) => wire.text().map(|_| ()),
            (kind, Wire::Bytes(packed)) if known.label == Label::Repeated && kind.is_packable() => {
                for_each_packed(kind, packed, |_| Ok(()))
            }
            (kind, wire) if kind.wire_type() == wire_type(wire) => Ok(()),
            _ => Err(WireError::new("unexpected wire type")),
        };
        checked.map_err(|error| error.within(known.name))?;
    }
    Ok(())
}

fn wire_type(wire: Wire<'_>) -> u8 {
    match wire {
        Wire::Varint(_) => super::reader::VARINT,
        Wire::Fixed64(_) => FIXED64,
        Wire::Bytes(_) => BYTES,
        Wire::Fixed32(_) => FIXED32,
    }
}

/// The values of a field that holds many, one after the other.
pub fn for_each_packed(kind: Kind, packed: &[u8], mut visit: impl FnMut(Wire<'_>) -> Result<()>) -> Result<()> {
    let mut values = Fields::new(packed);
    while !values.is_empty() {
        let value = match kind.wire_type() {
            FIXED64 => Wire::Fixed64(values.fixed64()?),
            FIXED32 => Wire::Fixed32(values.fixed32()?),
            _ => Wire::Varint(values.varint()?),
        };
        visit(value)?;
    }
    Ok(())
}
