//! Where a secret may begin: a quick look over a text, which tells nearly always that there is nothing.

#[derive(Clone, Copy)]
pub enum Kind {
    /// A name, then `=` or `:`, then the secret.
    Name,
    /// A scheme of authorization, then the secret.
    Scheme,
    /// `://`, then user, colon, the secret, `@`.
    Url,
    /// `-----BEGIN … PRIVATE KEY-----` and all to its end.
    PrivateKey,
    /// Three parts of base64, divided by dots.
    WebToken,
    /// A token of at least so many characters after a beginning that is its own mark.
    Marked(usize),
    /// The same, exactly so many, of upper-case letters and digits.
    AccessKey(usize),
}

/// In lower case; the first three bytes are what the quick look finds.
pub const BEGINNINGS: &[(&str, Kind)] = &[
    ("password", Kind::Name),
    ("passwd", Kind::Name),
    ("passphrase", Kind::Name),
    ("pwd", Kind::Name),
    ("secret_access_key", Kind::Name),
    ("secret_key", Kind::Name),
    ("secretkey", Kind::Name),
    ("secret-key", Kind::Name),
    ("secret", Kind::Name),
    ("token", Kind::Name),
    ("api_key", Kind::Name),
    ("api-key", Kind::Name),
    ("apikey", Kind::Name),
    ("accountkey", Kind::Name),
    ("sharedaccesskey", Kind::Name),
    ("sharedaccesssignature", Kind::Name),
    ("private_key", Kind::Name),
    ("credentials", Kind::Name),
    ("credential", Kind::Name),
    ("authorization", Kind::Name),
    ("set-cookie", Kind::Name),
    ("cookie", Kind::Name),
    ("bearer ", Kind::Scheme),
    ("basic ", Kind::Scheme),
    ("://", Kind::Url),
    ("-----begin ", Kind::PrivateKey),
    ("eyj", Kind::WebToken),
    ("akia", Kind::AccessKey(16)),
    ("asia", Kind::AccessKey(16)),
    ("ghp_", Kind::Marked(30)),
    ("gho_", Kind::Marked(30)),
    ("ghu_", Kind::Marked(30)),
    ("ghs_", Kind::Marked(30)),
    ("ghr_", Kind::Marked(30)),
    ("github_pat_", Kind::Marked(30)),
    ("glpat-", Kind::Marked(20)),
    ("xoxa-", Kind::Marked(10)),
    ("xoxb-", Kind::Marked(10)),
    ("xoxp-", Kind::Marked(10)),
    ("xoxr-", Kind::Marked(10)),
    ("xoxs-", Kind::Marked(10)),
    ("sk_live_", Kind::Marked(16)),
    ("sk-", Kind::Marked(32)),
    ("aiza", Kind::Marked(35)),
];

const fn slot(three: u32) -> usize {
    (three.wrapping_mul(0x9E37_79B1) >> 20) as usize
}

/// Lower case for letters; other bytes may change too, but all in the same way.
const fn three_of(first: u8, second: u8, third: u8) -> u32 {
    ((first as u32) << 16 | (second as u32) << 8 | third as u32) | 0x0020_2020
}

/// The five bits that letters of either case have in common.
const fn pair_of(first: u8, second: u8) -> usize {
    ((first as usize) | (second as usize) << 8) & 0x1f1f
}

struct Tables {
    /// Whether two bytes may be the first and second, or the second and third, of a beginning.
    pairs: [bool; 0x2000],
    /// Whether three bytes may begin something.
    threes: [bool; 4096],
}

static TABLES: Tables = {
    let mut tables = Tables {
        pairs: [false; 0x2000],
        threes: [false; 4096],
    };
    let mut index = 0;
    while index < BEGINNINGS.len() {
        let beginning = BEGINNINGS[index].0.as_bytes();
        tables.pairs[pair_of(beginning[0], beginning[1])] = true;
        tables.pairs[pair_of(beginning[1], beginning[2])] = true;
        tables.threes[slot(three_of(beginning[0], beginning[1], beginning[2]))] = true;
        index += 1;
    }
    tables
};

/// The next position from `from` on that begins something.
#[inline]
pub fn next_beginning(text: &[u8], from: usize) -> Option<(usize, &'static (&'static str, Kind))> {
    #[cfg(target_arch = "x86_64")]
    if text.len().saturating_sub(from) >= vectors::SHORTEST && is_x86_feature_detected!("ssse3") {
        // SAFETY: the processor has the instructions, and there are as many bytes.
        return unsafe { vectors::next_beginning(text, from) };
    }
    next_by_pairs(text, from)
}

fn next_by_pairs(text: &[u8], from: usize) -> Option<(usize, &'static (&'static str, Kind))> {
    // Of three bytes behind one another, the first two or the last two are one of these pairs.
    let (pairs, _) = text.get(from..)?.as_chunks::<2>();
    for (index, &[first, second]) in pairs.iter().enumerate() {
        if TABLES.pairs[pair_of(first, second)] {
            let at = from + 2 * index;
            let before = (index > 0).then(|| beginning_at(text, at - 1)).flatten();
            if let Some(found) = before.or_else(|| beginning_at(text, at)) {
                return Some(found);
            }
        }
    }
    None
}

#[inline]
fn beginning_at(text: &[u8], at: usize) -> Option<(usize, &'static (&'static str, Kind))> {
    let &[first, second, third] = text.get(at..)?.first_chunk()?;
    if !TABLES.threes[slot(three_of(first, second, third))] {
        return None;
    }
    let is_here = |(beginning, _): &&(&str, Kind)| {
        let found = text.get(at..at + beginning.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(beginning.as_bytes()))
    };
    BEGINNINGS.iter().find(is_here).map(|beginning| (at, beginning))
}

/// Sixteen positions at once: the bytes at each, and the two behind it, are looked up by their halves of four bits in
/// tables of the groups of beginnings that have such a byte there.
#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_setzero_si128,
        _mm_shuffle_epi8, _mm_srli_epi16,
    };

    use super::{beginning_at, Kind, BEGINNINGS};

    const POSITIONS: usize = 16;
    pub const SHORTEST: usize = POSITIONS + 2;

    /// Of eight; beginnings of one group are told apart by `beginning_at` only.
    const fn group(first: u8) -> u8 {
        1 << match first {
            b'p' => 0,
            b's' => 1,
            b't' | b'x' => 2,
            b'a' => 3,
            b'c' => 4,
            b'b' | b'e' => 5,
            b'g' => 6,
            _ => 7,
        }
    }

    /// By place in the beginning: the groups by the lower and by the upper half of the byte.
    static HALVES: [[[u8; 16]; 2]; 3] = {
        let mut halves = [[[0; 16]; 2]; 3];
        let mut index = 0;
        while index < BEGINNINGS.len() {
            let beginning = BEGINNINGS[index].0.as_bytes();
            let group = group(beginning[0]);
            let mut place = 0;
            while place < 3 {
                let (lower, upper) = (beginning[place], beginning[place].to_ascii_uppercase());
                halves[place][0][(lower & 15) as usize] |= group;
                halves[place][1][(lower >> 4) as usize] |= group;
                halves[place][1][(upper >> 4) as usize] |= group;
                place += 1;
            }
            index += 1;
        }
        halves
    };

    /// # Safety
    ///
    /// The processor must have SSSE3, `text` at least SHORTEST bytes from `from` on.
    #[target_feature(enable = "ssse3")]
    pub unsafe fn next_beginning(text: &[u8], from: usize) -> Option<(usize, &'static (&'static str, Kind))> {
        // SAFETY: an array of 16 bytes.
        let table = |halves: &[u8; 16]| unsafe { _mm_loadu_si128(halves.as_ptr().cast()) };
        let [[low_1, high_1], [low_2, high_2], [low_3, high_3]] = &HALVES;
        let first = (table(low_1), table(high_1));
        let second = (table(low_2), table(high_2));
        let third = (table(low_3), table(high_3));
        let low_half = _mm_set1_epi8(15);
        let groups = |at: usize, (low, high): (__m128i, __m128i)| {
            // SAFETY: `at` is at most two more than `last`, behind which there are 18 bytes.
            let bytes = unsafe { _mm_loadu_si128(text.as_ptr().add(at).cast()) };
            let lower = _mm_shuffle_epi8(low, _mm_and_si128(bytes, low_half));
            let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), low_half);
            _mm_and_si128(lower, _mm_shuffle_epi8(high, upper))
        };
        let last = text.len() - SHORTEST;
        let mut at = from;
        loop {
            // The last step looks at some positions again.
            let start = at.min(last);
            let first_two = _mm_and_si128(groups(start, first), groups(start + 1, second));
            let found = _mm_and_si128(first_two, groups(start + 2, third));
            let nothing = _mm_movemask_epi8(_mm_cmpeq_epi8(found, _mm_setzero_si128())) as u32;
            let mut candidates = !nothing & 0xffff & (u32::MAX << (at - start));
            while candidates != 0 {
                let beginning = beginning_at(text, start + candidates.trailing_zeros() as usize);
                if beginning.is_some() {
                    return beginning;
                }
                candidates &= candidates - 1;
            }
            if start == last {
                return None;
            }
            at = start + POSITIONS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_is_found_wherever_it_stands() {
        for (beginning, _) in BEGINNINGS {
            for before in 0..40 {
                for text in [beginning.to_string(), beginning.to_uppercase()] {
                    let text = format!("{}{text}{}", "_".repeat(before), "_".repeat(before % 7));
                    let (at, found) = next_beginning(text.as_bytes(), 0).unwrap();
                    assert_eq!(at, before, "{text}");
                    assert!(beginning.starts_with(found.0), "{text}");
                    assert!(next_beginning(text.as_bytes(), before).is_some());
                }
            }
        }
    }

    #[test]
    fn the_quick_look_finds_what_a_plain_search_finds() {
        let plain = |text: &[u8]| {
            let is_at = |at: usize, (beginning, _): &(&str, Kind)| {
                let found = text.get(at..at + beginning.len());
                found.is_some_and(|found| found.eq_ignore_ascii_case(beginning.as_bytes()))
            };
            (0..text.len()).find(|&at| BEGINNINGS.iter().any(|beginning| is_at(at, beginning)))
        };
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..next(6) {
                let beginning = BEGINNINGS[next(BEGINNINGS.len())].0.as_bytes();
                text.extend_from_slice(&beginning[..next(beginning.len() + 1)]);
                text.extend((0..next(3)).map(|_| b" aE_:/-kS5\xff"[next(11)]));
            }
            for look in [next_beginning, next_by_pairs] {
                let found = look(&text, 0).map(|(at, _)| at);
                assert_eq!(found, plain(&text), "{}", String::from_utf8_lossy(&text));
                let from = next(text.len() + 1);
                let found = look(&text, from).map(|(at, _)| at);
                let later = plain(&text[from..]).map(|at| from + at);
                assert_eq!(found, later, "{} from {from}", String::from_utf8_lossy(&text));
            }
        }
    }
}
