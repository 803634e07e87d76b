//! Turns ticks of a process's counter into nanoseconds since the epoch.
//! It must never go through floating point: doubles lose the sub-microsecond part after some months of ticks.

/// The counter of one process, tied to the wall clock at one point.
///
/// `start_ticks` was read at `start_time` (ns since the epoch); `frequency` is in ticks per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    start_time: i64,
    start_ticks: i64,
    frequency: i64,
}

const NS_PER_SECOND: i128 = 1_000_000_000;

impl Clock {
    /// A frequency of zero or less says that the producer did not know it: it has to be estimated before.
    pub fn new(start_time: i64, start_ticks: i64, frequency: i64) -> Result<Self, String> {
        if frequency <= 0 {
            return Err(format!("invalid frequency {frequency}"));
        }
        Ok(Self {
            start_time,
            start_ticks,
            frequency,
        })
    }

    /// What `new` was given.
    pub fn parts(&self) -> [i64; 3] {
        [self.start_time, self.start_ticks, self.frequency]
    }

    /// Ticks per second.
    pub fn frequency(&self) -> i64 {
        self.frequency
    }

    /// Nanoseconds since the epoch of the absolute counter value `ticks`, as an event carries it.
    pub fn time_of(&self, ticks: i64) -> i64 {
        self.time_after_start(i128::from(ticks) - i128::from(self.start_ticks))
    }

    /// Nanoseconds since the epoch of `ticks` that are already relative to `start_ticks`, as a block carries them.
    pub fn time_of_relative(&self, ticks: i64) -> i64 {
        self.time_after_start(i128::from(ticks))
    }

    /// The absolute counter value of ticks that are relative to `start_ticks`.
    pub fn absolute(&self, relative_ticks: i64) -> i64 {
        self.start_ticks.saturating_add(relative_ticks)
    }

    fn time_after_start(&self, elapsed_ticks: i128) -> i64 {
        let frequency = i128::from(self.frequency);
        let scaled = elapsed_ticks * NS_PER_SECOND;
        // half away from zero, as round() of a double does
        let half = if scaled < 0 { -frequency } else { frequency };
        let elapsed_ns = (2 * scaled + half) / (2 * frequency);
        let time = i128::from(self.start_time) + elapsed_ns;
        // hostile ticks must give a time at the end of the range, not a wrapped one
        time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_unknown_frequency() {
        assert_eq!(Clock::new(0, 0, 0), Err("invalid frequency 0".to_string()));
        assert!(Clock::new(0, 0, -5).is_err());
    }

    #[test]
    fn rounds_half_away_from_zero() {
        let clock = Clock::new(1000, 100, 2_000_000_000).unwrap();
        assert_eq!(clock.time_of(101), 1001);
        assert_eq!(clock.time_of(99), 999);
        assert_eq!(clock.time_of(103), 1002);
        assert_eq!(clock.time_of(97), 998);
        assert_eq!(clock.time_of_relative(-3), 998);
    }

    #[test]
    fn keeps_every_nanosecond_after_a_year() {
        let year = 365 * 86_400 * 3_000_000_000_i64;
        let clock = Clock::new(1_700_000_000_000_000_001, 7, 3_000_000_000).unwrap();
        assert_eq!(
            clock.time_of(year + 7),
            1_700_000_000_000_000_001 + 365 * 86_400 * 1_000_000_000
        );
        assert_eq!(clock.time_of(year + 10) - clock.time_of(year + 7), 1);
    }

    #[test]
    fn saturates_on_absurd_ticks() {
        let clock = Clock::new(i64::MAX, 0, 1).unwrap();
        assert_eq!(clock.time_of(i64::MAX), i64::MAX);
        let clock = Clock::new(i64::MIN, i64::MAX, 1).unwrap();
        assert_eq!(clock.time_of(i64::MIN), i64::MIN);
        assert_eq!(clock.absolute(i64::MAX), i64::MAX);
    }
}
