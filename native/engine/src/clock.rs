//! Turns ticks of a process's counter into nanoseconds since the epoch.
//! It must never go through floating point: doubles lose the sub-microsecond part after some months of ticks.

const NS_PER_SECOND: i64 = 1_000_000_000;
/// Twice this many ns-per-second still fit 64 bits.
const LARGEST_NARROW_FREQUENCY: i64 = 4_000_000_000;

/// From `ticks` (relative to the start of the process) on, which are `time` (ns since the epoch), the counter counts
/// `frequency` ticks per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    ticks: i64,
    time: i64,
    frequency: i64,
}

/// The counter of one process, tied to the wall clock at one point.
///
/// `start_ticks` was read at `start_time` (ns since the epoch). A process that knows its counter has one rate for its
/// whole life. For others the rate is measured, and measured better as they go on: each holds up to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    start_ticks: i64,
    first: Rate,
    later: Vec<Rate>,
}

impl Clock {
    /// A frequency (ticks per second) of zero or less says that the producer did not know it: it has to be estimated
    /// before.
    pub fn new(start_time: i64, start_ticks: i64, frequency: i64) -> Result<Self, String> {
        Ok(Self {
            start_ticks,
            first: Rate::new(0, start_time, frequency)?,
            later: Vec::new(),
        })
    }

    /// The same clock with what was measured later: (relative ticks, ns since the epoch, ticks per second) of each
    /// rate, by ticks.
    pub fn with_later_rates(mut self, rates: &[(i64, i64, i64)]) -> Result<Self, String> {
        self.later = rates
            .iter()
            .map(|(ticks, time, frequency)| Rate::new(*ticks, *time, *frequency))
            .collect::<Result<_, _>>()?;
        match self.later.is_sorted_by_key(|rate| rate.ticks) {
            true => Ok(self),
            false => Err("the rates of a clock are not in order".to_string()),
        }
    }

    /// What `new` was given.
    pub fn parts(&self) -> [i64; 3] {
        [self.first.time, self.start_ticks, self.first.frequency]
    }

    /// What `with_later_rates` was given.
    pub fn later_rates(&self) -> impl ExactSizeIterator<Item = (i64, i64, i64)> + '_ {
        self.later.iter().map(|rate| (rate.ticks, rate.time, rate.frequency))
    }

    /// Ticks per second at the absolute counter value `ticks`.
    pub fn frequency_at(&self, ticks: i64) -> i64 {
        self.rate_at(i128::from(ticks) - i128::from(self.start_ticks)).frequency
    }

    /// Nanoseconds since the epoch of the absolute counter value `ticks`, as an event carries it.
    pub fn time_of(&self, ticks: i64) -> i64 {
        match ticks.checked_sub(self.start_ticks) {
            Some(relative) => self.time_of_relative(relative),
            None => self.wide_time_of(i128::from(ticks) - i128::from(self.start_ticks)),
        }
    }

    /// Nanoseconds since the epoch of `ticks` that are already relative to `start_ticks`, as a block carries them.
    pub fn time_of_relative(&self, ticks: i64) -> i64 {
        let rate = self.rate_at(i128::from(ticks));
        ticks
            .checked_sub(rate.ticks)
            .and_then(|elapsed| rate.narrow_time_after(elapsed))
            .unwrap_or_else(|| self.wide_time_of(i128::from(ticks)))
    }

    /// The absolute counter value of ticks that are relative to `start_ticks`.
    pub fn absolute(&self, relative_ticks: i64) -> i64 {
        self.start_ticks.saturating_add(relative_ticks)
    }

    fn rate_at(&self, relative_ticks: i128) -> &Rate {
        let behind = self
            .later
            .partition_point(|rate| i128::from(rate.ticks) <= relative_ticks);
        match behind {
            0 => &self.first,
            _ => &self.later[behind - 1],
        }
    }

    fn wide_time_of(&self, relative_ticks: i128) -> i64 {
        let rate = self.rate_at(relative_ticks);
        let frequency = i128::from(rate.frequency);
        let elapsed_ns = rounded_quotient(
            (relative_ticks - i128::from(rate.ticks)) * i128::from(NS_PER_SECOND),
            frequency,
        );
        let time = i128::from(rate.time) + elapsed_ns;
        // hostile ticks must give a time at the end of the range, not a wrapped one
        time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

impl Rate {
    fn new(ticks: i64, time: i64, frequency: i64) -> Result<Self, String> {
        match frequency {
            1.. => Ok(Self { ticks, time, frequency }),
            _ => Err(format!("invalid frequency {frequency}")),
        }
    }

    /// The time after so many ticks where 64 bits are enough, which takes a fraction of the time of 128.
    fn narrow_time_after(&self, ticks: i64) -> Option<i64> {
        let frequency = self.frequency;
        if frequency > LARGEST_NARROW_FREQUENCY {
            return None;
        }
        let seconds = (ticks / frequency).checked_mul(NS_PER_SECOND)?;
        let scaled = ticks % frequency * NS_PER_SECOND;
        let half = if scaled < 0 { -frequency } else { frequency };
        let rest = (2 * scaled + half) / (2 * frequency);
        self.time.checked_add(seconds.checked_add(rest)?)
    }
}

/// Rounded half away from zero, as round() of a double does.
fn rounded_quotient(dividend: i128, divisor: i128) -> i128 {
    let half = if dividend < 0 { -divisor } else { divisor };
    (2 * dividend + half) / (2 * divisor)
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

    #[test]
    fn counts_with_the_rate_in_force() {
        let rates = [(1000, 2000, 500_000_000), (2000, 4000, 1_000_000_000)];
        let clock = Clock::new(1000, 7, 1_000_000_000)
            .unwrap()
            .with_later_rates(&rates)
            .unwrap();
        let times: Vec<i64> = [-5, 0, 999, 1000, 1001, 1999, 2000, 2001]
            .map(|ticks| clock.time_of_relative(ticks))
            .into();
        assert_eq!(times, [995, 1000, 1999, 2000, 2002, 3998, 4000, 4001]);
        assert_eq!(clock.time_of(1008), 2002);
        assert_eq!(
            [1006, 1007, 2007].map(|ticks| clock.frequency_at(ticks)),
            [1_000_000_000, 500_000_000, 1_000_000_000]
        );
        assert!(clock.clone().with_later_rates(&[rates[1], rates[0]]).is_err());
        assert!(clock.with_later_rates(&[(0, 0, 0)]).is_err());
    }

    #[test]
    fn narrow_and_wide_arithmetic_agree() {
        let mut state = 7_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> (state % 40)) as i64
        };
        for _ in 0..100_000 {
            let (time, ticks, frequency) = (random(), random().wrapping_neg(), random().unsigned_abs() as i64);
            let Ok(clock) = Clock::new(time, 0, frequency.max(1)) else {
                panic!("the frequency is positive");
            };
            for ticks in [ticks, ticks.wrapping_neg()] {
                assert_eq!(clock.time_of_relative(ticks), clock.wide_time_of(i128::from(ticks)));
            }
        }
    }
}
