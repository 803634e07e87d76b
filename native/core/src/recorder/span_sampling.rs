//! Which spans are sent: all of them, a share of the call trees, or those around slow frames.
//!
//! Must never separate an end from its begin within what it keeps, and counts exactly what it leaves out.

use std::collections::{HashMap, VecDeque};

/// How many frames make the mean, and what the mean is before there were any: so the first frames never trigger.
const FRAMES: usize = 32;
const FIRST_MEAN_NS: u64 = 60_000_000_000;
/// A frame triggers that takes longer than so many times the mean; each capture makes the next one rarer.
const FIRST_FACTOR: f64 = 1.3;
const GROWTH_PER_CAPTURE: f64 = 1.01;
/// While there are frames, one is captured at least so often.
const HEARTBEAT_NS: u64 = 120_000_000_000;
/// Spans that wait for their verdict are younger than this, or bounded by their size.
const REMEMBERED_NS: u64 = 300_000_000_000;
/// Async spans whose root's fate is remembered; a program that leaves more open forgets the oldest fates.
const MOST_DECIDED: usize = 100_000;

#[derive(Clone, Debug, Default)]
pub enum SpanSampling {
    #[default]
    All,
    Spikes,
    /// Share of the call trees by the name of their outermost span; `*` stands for all others.
    Shares(Vec<(String, f64)>),
}

#[derive(PartialEq, Eq, Debug, Clone, Copy)]
pub enum Verdict {
    Keep,
    Drop,
    /// A frame is open that may become a slow one.
    Wait,
}

pub struct SpanSampler {
    spikes: Option<Spikes>,
    shares: HashMap<String, f64>,
    other_share: f64,
    draws: u64,
    seed: u64,
    decided: HashMap<u64, bool>,
    left_out: u64,
    told: u64,
}

impl SpanSampler {
    pub fn new(sampling: &SpanSampling, seed: u64) -> Self {
        let mut shares = HashMap::new();
        let mut spikes = None;
        match sampling {
            SpanSampling::All => {}
            SpanSampling::Spikes => spikes = Some(Spikes::new()),
            SpanSampling::Shares(given) => shares.extend(given.iter().cloned()),
        }
        Self {
            spikes,
            other_share: shares.remove("*").unwrap_or(1.0),
            shares,
            draws: 0,
            seed,
            decided: HashMap::new(),
            left_out: 0,
            told: 0,
        }
    }

    fn keeps_all_trees(&self) -> bool {
        self.shares.is_empty() && self.other_share >= 1.0
    }

    fn share(&self, name: &str) -> f64 {
        self.shares.get(name).copied().unwrap_or(self.other_share)
    }

    /// Whether the tree of an outermost span of a thread is kept.
    pub fn keeps_tree(&mut self, name: impl FnOnce() -> String) -> bool {
        if self.keeps_all_trees() {
            return true;
        }
        self.draws += 1;
        chance(self.draws ^ self.seed) < self.share(&name())
    }

    /// Whether an async span is kept: as its parent is. The fate of an outermost one follows from its id, so that begin
    /// and end, and children that are read before their parents, agree.
    pub fn keeps_async(&mut self, id: u64, parent: u64, is_end: bool, name: impl FnOnce() -> String) -> bool {
        if self.keeps_all_trees() {
            return true;
        }
        let known = if is_end {
            self.decided.remove(&id)
        } else {
            self.decided.get(&id).copied()
        };
        let kept = known.unwrap_or_else(|| {
            if parent == 0 {
                chance(id ^ self.seed) < self.share(&name())
            } else {
                let of_parent = self.decided.get(&parent).copied();
                of_parent.unwrap_or_else(|| chance(parent ^ self.seed) < self.other_share)
            }
        });
        if !is_end {
            if self.decided.len() >= MOST_DECIDED {
                self.decided.clear();
            }
            self.decided.insert(id, kept);
        }
        kept
    }

    pub fn left_out(&mut self, events: u64) {
        self.left_out += events;
    }

    /// Events left out since the last call.
    pub fn tell_left_out(&mut self) -> u64 {
        let news = self.left_out - self.told;
        self.told = self.left_out;
        news
    }

    pub fn frame(&mut self, begin_ns: u64, end_ns: u64) {
        if let Some(spikes) = &mut self.spikes {
            spikes.frame(begin_ns, end_ns);
        }
    }

    /// What becomes of spans between these times. `open`: the begins of frames that have not ended at `now_ns`.
    pub fn verdict(&self, first_ns: u64, last_ns: u64, now_ns: u64, open: impl Iterator<Item = u64>) -> Verdict {
        self.spikes
            .as_ref()
            .map_or(Verdict::Keep, |spikes| spikes.verdict(first_ns, last_ns, now_ns, open))
    }
}

/// An evenly distributed number from 0 to below 1 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn chance(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

struct Spikes {
    last_frames: VecDeque<u64>,
    sum_ns: u64,
    factor: f64,
    last_capture_ns: Option<u64>,
    captured: VecDeque<(u64, u64)>,
}

impl Spikes {
    fn new() -> Self {
        Self {
            last_frames: VecDeque::from([FIRST_MEAN_NS; FRAMES]),
            sum_ns: FIRST_MEAN_NS * FRAMES as u64,
            factor: FIRST_FACTOR,
            last_capture_ns: None,
            captured: VecDeque::new(),
        }
    }

    fn is_slow(&self, took_ns: u64) -> bool {
        took_ns as f64 > self.factor * (self.sum_ns as f64 / FRAMES as f64)
    }

    fn frame(&mut self, begin_ns: u64, end_ns: u64) {
        let took_ns = end_ns.saturating_sub(begin_ns);
        let since = *self.last_capture_ns.get_or_insert(begin_ns);
        let slow = self.is_slow(took_ns);
        if slow || begin_ns.saturating_sub(since) >= HEARTBEAT_NS {
            self.captured.push_back((begin_ns, end_ns));
            self.last_capture_ns = Some(end_ns);
        }
        if slow {
            self.factor *= GROWTH_PER_CAPTURE;
        }
        self.sum_ns -= self.last_frames.pop_front().unwrap_or_default();
        self.sum_ns += took_ns;
        self.last_frames.push_back(took_ns);
        while self
            .captured
            .front()
            .is_some_and(|&(_, end)| end + REMEMBERED_NS < end_ns)
        {
            self.captured.pop_front();
        }
    }

    fn verdict(&self, first_ns: u64, last_ns: u64, now_ns: u64, open: impl Iterator<Item = u64>) -> Verdict {
        let mut verdict = Verdict::Drop;
        for begin_ns in open.filter(|&begin_ns| begin_ns <= last_ns) {
            if self.is_slow(now_ns.saturating_sub(begin_ns)) {
                return Verdict::Keep;
            }
            verdict = Verdict::Wait;
        }
        let touches = |&(begin, end): &(u64, u64)| begin <= last_ns && first_ns <= end;
        if self.captured.iter().any(touches) {
            return Verdict::Keep;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Frames of 10 ms, one after the other, from 0; gives the time after them.
    fn calm(spikes: &mut Spikes, frames: u64, from_ns: u64) -> u64 {
        for frame in 0..frames {
            spikes.frame(from_ns + frame * 10 * MS, from_ns + (frame + 1) * 10 * MS);
        }
        from_ns + frames * 10 * MS
    }

    #[test]
    fn the_first_frames_never_trigger() {
        let mut spikes = Spikes::new();
        spikes.frame(0, 2_000 * MS);
        calm(&mut spikes, 30, 2_000 * MS);
        assert!(spikes.captured.is_empty());
    }

    #[test]
    fn a_slow_frame_is_captured_and_makes_the_next_rarer() {
        let mut spikes = Spikes::new();
        let now = calm(&mut spikes, 32, 0);
        spikes.frame(now, now + 12 * MS);
        assert!(spikes.captured.is_empty());
        spikes.frame(now + 12 * MS, now + 32 * MS);
        assert_eq!(spikes.captured, [(now + 12 * MS, now + 32 * MS)]);
        assert!((spikes.factor - 1.313).abs() < 1e-9);
        let none = std::iter::empty::<u64>;
        assert_eq!(spikes.verdict(0, now + 11 * MS, now + 40 * MS, none()), Verdict::Drop);
        assert_eq!(spikes.verdict(0, now + 12 * MS, now + 40 * MS, none()), Verdict::Keep);
        assert_eq!(
            spikes.verdict(now + 32 * MS, now + 40 * MS, now + 40 * MS, none()),
            Verdict::Keep
        );
        assert_eq!(
            spikes.verdict(now + 33 * MS, now + 40 * MS, now + 40 * MS, none()),
            Verdict::Drop
        );
    }

    #[test]
    fn an_open_frame_keeps_its_spans_waiting_until_it_is_slow() {
        let mut spikes = Spikes::new();
        let now = calm(&mut spikes, 32, 0);
        let open = || std::iter::once(now);
        assert_eq!(spikes.verdict(now, now + MS, now + 2 * MS, open()), Verdict::Wait);
        assert_eq!(spikes.verdict(now, now + MS, now + 14 * MS, open()), Verdict::Keep);
        assert_eq!(
            spikes.verdict(now - 2 * MS, now - MS, now + 2 * MS, open()),
            Verdict::Drop
        );
    }

    #[test]
    fn a_heartbeat_is_captured() {
        let mut spikes = Spikes::new();
        let now = calm(&mut spikes, 12_001, 0);
        assert_eq!(spikes.captured, [(now - 10 * MS, now)]);
        assert_eq!(spikes.factor, FIRST_FACTOR);
    }

    #[test]
    fn shares_of_trees() {
        let shares = SpanSampling::Shares(vec![("rare".into(), 0.1), ("never".into(), 0.0)]);
        let mut sampler = SpanSampler::new(&shares, 7);
        let mut kept = |name: &str| (0..10_000).filter(|_| sampler.keeps_tree(|| name.into())).count();
        assert!((900..1100).contains(&kept("rare")));
        assert_eq!(kept("never"), 0);
        assert_eq!(kept("other"), 10_000);
    }

    #[test]
    fn async_spans_share_the_fate_of_their_root() {
        let mut sampler = SpanSampler::new(&SpanSampling::Shares(vec![("*".into(), 0.5)]), 7);
        let mut kept = 0;
        for root in (1..20_000).step_by(10) {
            let name = || "x".to_owned();
            let child = sampler.keeps_async(root + 1, root, false, name); // read before its parent
            let fate = sampler.keeps_async(root, 0, false, name);
            let grandchild = sampler.keeps_async(root + 2, root + 1, false, name);
            assert!(child == fate && grandchild == fate);
            for id in [root, root + 1, root + 2] {
                assert_eq!(sampler.keeps_async(id, 0, true, name), fate);
            }
            kept += u32::from(fate);
        }
        assert!((900..1100).contains(&kept));
        assert!(sampler.decided.is_empty());
    }
}
