//! Which track shows a span: within a track, spans must lie inside of one another or apart, never overlap halfway.
//! Spans come in order of their begins; ends come out in order of time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// Of whom the lanes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A thread, by a number of the caller's. A span lies inside of whatever is open on its thread.
    Thread(u32),
    /// The async spans of the process. A span lies inside of its parent, or has a lane for itself.
    Async,
}

#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub owner: Owner,
    pub id: i64,
    pub parent: i64,
    pub depth: u32,
    pub begin: i64,
    pub end: i64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    id: i64,
    depth: u32,
    end: i64,
}

struct Lane {
    owner: Owner,
    open: Vec<Open>,
}

/// Lanes are numbered from 0 over all owners.
#[derive(Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    /// In order: the first is the thread's own track.
    of_thread: HashMap<u32, Vec<usize>>,
    free_async: BTreeSet<usize>,
    open_async: HashMap<i64, usize>,
    /// Earliest end first; of equal ends, the innermost (it was opened last).
    ends: BinaryHeap<(Reverse<i64>, u64, usize)>,
    opened: u64,
}

impl Lanes {
    /// The next end before an event of `time`: its lane and its time. `before` is the span that begins there, if one
    /// does: what it lies inside of stays open for it, even if it ends at this very moment.
    pub fn next_end(&mut self, time: i64, before: Option<&Span>) -> Option<(usize, i64)> {
        let &(Reverse(end), _, lane) = self.ends.peek()?;
        let is_due = match before {
            Some(span) => end < time || (end == time && !self.encloses(lane, span)),
            None => end < time,
        };
        if !is_due {
            return None;
        }
        self.ends.pop();
        self.close(lane);
        Some((lane, end))
    }

    /// The ends that are left when nothing follows.
    pub fn last_end(&mut self) -> Option<(usize, i64)> {
        let (Reverse(end), _, lane) = self.ends.pop()?;
        self.close(lane);
        Some((lane, end))
    }

    fn encloses(&self, lane: usize, span: &Span) -> bool {
        let lane = &self.lanes[lane];
        let Some(top) = lane.open.last() else { return false };
        lane.owner == span.owner
            && match span.owner {
                Owner::Thread(_) => top.depth < span.depth,
                Owner::Async => top.id == span.parent,
            }
    }

    fn close(&mut self, lane: usize) {
        let state = &mut self.lanes[lane];
        let closed = state.open.pop();
        if state.owner == Owner::Async {
            if state.open.is_empty() {
                self.free_async.insert(lane);
            }
            if let Some(closed) = closed {
                if self.open_async.get(&closed.id) == Some(&lane) {
                    self.open_async.remove(&closed.id);
                }
            }
        }
    }

    /// Opens a span, all earlier ends having been taken: its lane, and the lane's rank among those of its owner if it
    /// is a new one.
    pub fn open(&mut self, span: &Span) -> (usize, Option<usize>) {
        let (lane, rank) = match span.owner {
            Owner::Thread(thread) => self.lane_of_thread(thread, span),
            Owner::Async => self.lane_of_async(span),
        };
        self.lanes[lane].open.push(Open {
            id: span.id,
            depth: span.depth,
            end: span.end,
        });
        self.opened += 1;
        self.ends.push((Reverse(span.end), self.opened, lane));
        (lane, rank)
    }

    fn lane_of_thread(&mut self, thread: u32, span: &Span) -> (usize, Option<usize>) {
        let lanes = self.of_thread.entry(thread).or_default();
        let fits = |lane: &usize| self.lanes[*lane].open.last().is_none_or(|top| top.end >= span.end);
        if let Some(lane) = lanes.iter().copied().find(|lane| fits(lane)) {
            return (lane, None);
        }
        let lane = self.lanes.len();
        lanes.push(lane);
        let rank = lanes.len() - 1;
        self.lanes.push(Lane {
            owner: span.owner,
            open: Vec::new(),
        });
        (lane, Some(rank))
    }

    fn lane_of_async(&mut self, span: &Span) -> (usize, Option<usize>) {
        let of_parent = self.open_async.get(&span.parent).copied().filter(|lane| {
            let top = self.lanes[*lane].open.last();
            top.is_some_and(|top| top.id == span.parent && top.end >= span.end)
        });
        let (lane, rank) = match of_parent.or_else(|| self.free_async.pop_first()) {
            Some(lane) => (lane, None),
            None => {
                let lane = self.lanes.len();
                self.lanes.push(Lane {
                    owner: Owner::Async,
                    open: Vec::new(),
                });
                (lane, Some(0))
            }
        };
        self.free_async.remove(&lane);
        self.open_async.insert(span.id, lane);
        (lane, rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(owner: Owner, id: i64, parent: i64, depth: u32, begin: i64, end: i64) -> Span {
        Span {
            owner,
            id,
            parent,
            depth,
            begin,
            end,
        }
    }

    /// Lane by span, and the ends in the order given.
    fn shown(spans: &[Span]) -> (Vec<usize>, Vec<(usize, i64)>) {
        let mut lanes = Lanes::default();
        let (mut placed, mut ends) = (Vec::new(), Vec::new());
        for span in spans {
            while let Some(end) = lanes.next_end(span.begin, Some(span)) {
                ends.push(end);
            }
            placed.push(lanes.open(span).0);
        }
        while let Some(end) = lanes.last_end() {
            ends.push(end);
        }
        (placed, ends)
    }

    #[test]
    fn async_spans_lie_in_their_parent_or_alone() {
        let spans = [
            span(Owner::Async, 1, 0, 0, 0, 100),
            span(Owner::Async, 2, 1, 1, 10, 20),
            span(Owner::Async, 3, 1, 1, 15, 30),
            span(Owner::Async, 4, 1, 1, 40, 120),
            span(Owner::Async, 5, 4, 2, 50, 60),
        ];
        let (placed, ends) = shown(&spans);
        assert_eq!(placed, [0, 0, 1, 1, 1]);
        assert_eq!(ends, [(0, 20), (1, 30), (1, 60), (0, 100), (1, 120)]);
    }

    #[test]
    fn what_has_no_duration_lies_inside_of_its_parent() {
        let thread = Owner::Thread(7);
        let spans = [
            span(thread, 1, -1, 1, 10, 10),
            span(thread, 2, 1, 2, 10, 10),
            span(thread, 3, -1, 1, 10, 20),
        ];
        let mut lanes = Lanes::default();
        lanes.open(&spans[0]);
        assert_eq!(lanes.next_end(10, Some(&spans[1])), None);
        lanes.open(&spans[1]);
        assert_eq!(lanes.next_end(10, Some(&spans[2])), Some((0, 10)));
        assert_eq!(lanes.next_end(10, Some(&spans[2])), Some((0, 10)));
        assert_eq!(lanes.next_end(10, Some(&spans[2])), None);
    }

    #[test]
    fn spans_of_a_thread_that_overlap_get_another_lane() {
        let thread = Owner::Thread(0);
        let (placed, _) = shown(&[span(thread, 1, 0, 1, 0, 10), span(thread, 2, 0, 1, 5, 15)]);
        assert_eq!(placed, [0, 1]);
    }
}
