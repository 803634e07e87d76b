//! The little of protobuf's encoding that writing a trace needs. Fields are appended to a buffer in the order given.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;

#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

#[inline]
pub fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

/// An int32 or int64: negative numbers take ten bytes.
pub fn int(out: &mut Vec<u8>, field: u32, value: i64) {
    uint(out, field, value as u64);
}

pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    fixed64(out, field, value.to_bits());
}

#[inline]
pub fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    key(out, field, LENGTH_DELIMITED);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

pub fn text(out: &mut Vec<u8>, field: u32, content: &str) {
    bytes(out, field, content.as_bytes());
}

/// A message within a message.
pub fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    write(&mut content);
    bytes(out, field, &content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_written_as_the_format_says() {
        let mut out = Vec::new();
        uint(&mut out, 1, 150);
        text(&mut out, 2, "testing");
        int(&mut out, 3, -2);
        fixed64(&mut out, 4, 1);
        message(&mut out, 16, |inner| uint(inner, 1, 0));
        let expected: &[&[u8]] = &[
            &[0x08, 0x96, 0x01],
            b"\x12\x07testing",
            &[0x18, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            &[0x21, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0x82, 0x01, 0x02, 0x08, 0x00],
        ];
        assert_eq!(out, expected.concat());
    }
}
