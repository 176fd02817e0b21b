//! Requests as a cache sees them: made up from a seed, the same ones everywhere and each time.

/// Requests of a trace.
pub(crate) const REQUESTS: usize = 1_000_000;

/// Different keys that are asked for again and again.
const KEYS: u64 = 100_000;

/// A scan asks for this many keys, each only once.
const SCAN_KEYS: u64 = 10_000;

/// Between two scans.
const SCAN_EVERY: usize = 30_000;

/// How often popularity changes.
const SHIFT_EVERY: usize = 100_000;

/// By this many ranks: the first keys then stand behind the middle.
const SHIFT_BY: u64 = 5_000;

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks, of which the first is asked for most: the n-th 1/n^skew times as often.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(skew: f64) -> Self {
        let mut sum = 0.0;
        let up_to = |rank: u64| {
            sum += (rank as f64).powf(-skew);
            sum
        };
        Self((1..=KEYS).map(up_to).collect())
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let sum = self.0.last().copied().unwrap_or_default();
        let wanted = random.share() * sum;
        self.0.partition_point(|up_to| *up_to < wanted) as u64
    }
}

/// The requests, one key after the other.
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) keys: Vec<u64>,
}

impl Trace {
    /// Those of the table.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::zipf(0.9),
            Self::zipf(1.0),
            Self::zipf(1.2),
            Self::with_scans(1.0),
            Self::with_shifts(1.0),
            Self::once_or_soon_again(),
        ]
    }

    pub(crate) fn zipf(skew: f64) -> Self {
        let (zipf, mut random) = (Zipf::new(skew), Random(1));
        Self {
            name: format!("zipf {skew:.1}"),
            keys: (0..REQUESTS).map(|_| zipf.rank(&mut random)).collect(),
        }
    }

    pub(crate) fn with_scans(skew: f64) -> Self {
        let (zipf, mut random) = (Zipf::new(skew), Random(2));
        let (mut keys, mut next) = (Vec::with_capacity(REQUESTS), KEYS);
        while keys.len() < REQUESTS {
            if keys.len() % SCAN_EVERY < SCAN_KEYS as usize {
                keys.push(next);
                next += 1;
            } else {
                keys.push(zipf.rank(&mut random));
            }
        }
        Self {
            name: format!("zipf {skew:.1}, a third scans"),
            keys,
        }
    }

    pub(crate) fn with_shifts(skew: f64) -> Self {
        let (zipf, mut random) = (Zipf::new(skew), Random(3));
        let key = |at: usize| {
            let shift = (at / SHIFT_EVERY) as u64 * SHIFT_BY;
            (zipf.rank(&mut random) + shift) % KEYS
        };
        Self {
            name: format!("zipf {skew:.1}, shifting"),
            keys: (0..REQUESTS).map(key).collect(),
        }
    }

    /// A pattern of real prompts: three of four come once, the rest again and again for a while.
    pub(crate) fn once_or_soon_again() -> Self {
        const LATELY: u64 = 20_000;
        let mut random = Random(4);
        let mut keys: Vec<u64> = Vec::with_capacity(REQUESTS);
        let mut next = 0;
        // Of each fourth key, asked for once more each time that it was asked for lately.
        let mut lately: Vec<u64> = Vec::new();
        while keys.len() < REQUESTS {
            if random.below(2) == 0 || lately.is_empty() {
                keys.push(next);
                if next % 4 == 0 {
                    lately.push(next);
                }
                next += 1;
            } else {
                let among = LATELY.min(lately.len() as u64);
                let at = lately.len() - 1 - random.below(among) as usize;
                keys.push(lately[at]);
            }
        }
        Self {
            name: "once, or soon again".into(),
            keys,
        }
    }
}
