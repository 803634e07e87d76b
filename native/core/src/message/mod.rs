//! Messages of log events: a `%` template and the values for it, made to text exactly as Python would. Used by the
//! recorder when it writes texts, and by the codec when it reads blocks that keep templates and values apart.

pub mod floats;
pub mod template;
pub mod value;

/// A longer message is cut: readers hold whole messages in memory.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Cuts the message that begins at `start` if it is too long, and says so in it.
pub fn finish_message(texts: &mut String, start: usize) {
    let length = texts.len() - start;
    if length > MAX_MESSAGE_BYTES {
        let mut end = start + MAX_MESSAGE_BYTES;
        while !texts.is_char_boundary(end) {
            end -= 1;
        }
        texts.truncate(end);
        texts.push_str(&format!("… [cut: {length} bytes]"));
    }
}
