//! Hashing of dependency ids and of texts. Ids are chosen by whoever sends, so the hash has a secret per map: nobody can make all
//! the ids of a block collide.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Mixes one u64 with two secrets by a 64 × 64 → 128 bit product.
#[derive(Clone)]
pub struct IdHasher {
    secret: u64,
    factor: u64,
}

impl Default for IdHasher {
    fn default() -> Self {
        let state = RandomState::new();
        // an odd factor loses no bit of the id
        Self {
            secret: state.hash_one(0),
            factor: state.hash_one(1) | 1,
        }
    }
}

impl IdHasher {
    /// Of a text as words, the last one filled up with zeros.
    #[inline(always)]
    pub fn of_words(&self, length: usize, words: impl Iterator<Item = u64>) -> u64 {
        let mut mixed = self.build_hasher();
        mixed.write_usize(length);
        words.for_each(|word| mixed.write_u64(word));
        mixed.hash
    }
}

impl BuildHasher for IdHasher {
    type Hasher = MixedId;

    #[inline]
    fn build_hasher(&self) -> MixedId {
        MixedId {
            hash: self.secret,
            factor: self.factor,
        }
    }
}

pub struct MixedId {
    hash: u64,
    factor: u64,
}

impl Hasher for MixedId {
    #[inline]
    fn write_u64(&mut self, id: u64) {
        let product = u128::from(self.hash ^ id) * u128::from(self.factor);
        self.hash = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        // The rest in one step; what is read twice does no harm, and how much there is was told by the length.
        if let (false, Some(last)) = (rest.is_empty(), bytes.last_chunk::<8>()) {
            self.write_u64(u64::from_le_bytes(*last));
        } else if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
            let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
            self.write_u64(u64::from(first) | u64::from(last) << 32);
        } else if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            let middle = rest[rest.len() / 2];
            self.write_u64(u64::from(*first) | u64::from(middle) << 8 | u64::from(*last) << 16 | 1 << 24);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}
