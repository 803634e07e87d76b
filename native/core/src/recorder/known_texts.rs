//! The texts among the values of log events, each kept once: one that comes again is neither copied nor searched for
//! secrets again.

use super::scrubber::Scrubber;
use crate::codec::columns::Dictionary;

/// What is kept from one cut to the next.
const MOST_TEXTS: usize = 32 << 10;
const MOST_BYTES: usize = 1 << 20;

#[derive(Default)]
pub struct KnownTexts {
    texts: Dictionary,
    /// By index: whether a text may be, or become part of, a secret.
    suspicious: Vec<bool>,
}

impl KnownTexts {
    /// The index of a text that is UTF-8, and whether the scrubber finds it suspicious: always the same scrubber.
    #[inline]
    pub fn look_at(&mut self, text: &[u8], scrubber: &Scrubber) -> (u32, bool) {
        match self.texts.look_up(text) {
            Ok(index) => (index, self.suspicious[index as usize]),
            Err(missing) => {
                let is_suspicious = scrubber.is_suspicious(text);
                self.suspicious.push(is_suspicious);
                (self.texts.insert(text, missing), is_suspicious)
            }
        }
    }

    pub fn dictionary(&mut self) -> &mut Dictionary {
        &mut self.texts
    }

    /// Forgets all texts if they are many: no event refers to them any more.
    pub fn shrink(&mut self) {
        if self.texts.count() > MOST_TEXTS || self.texts.bytes() > MOST_BYTES {
            *self = Self::default();
        }
    }
}
