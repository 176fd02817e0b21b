//! Tells the workers of one Envoy about refreshed answers, where no daemon does.
//!
//! They share a few bytes in Envoy: the number of refreshes so far, and the digests of the last
//! ones. A worker that has missed more than those drops all its answers.

/// Digests in the shared bytes.
const DIGESTS_MAX: usize = 64;

/// Bytes of the number before them.
const COUNT_BYTES: usize = 8;

/// What one worker knows of them.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The number of refreshes that it has read; none before its first look.
    known: Option<u64>,
}

/// What a worker has to drop.
#[derive(Debug, PartialEq, Eq)]
pub enum Gone {
    /// Answers under these digests, perhaps none.
    These(Vec<[u8; 32]>),
    /// Everything.
    All,
}

impl Refreshed {
    /// What is new in the shared bytes, which are empty before the first refresh.
    pub fn hears(&mut self, shared: &[u8]) -> Gone {
        let (count, digests) = read(shared);
        // Nothing is hot before the first look.
        let known = self.known.replace(count).unwrap_or(count);
        match usize::try_from(count.wrapping_sub(known)) {
            Ok(missed) if missed <= digests.len() => {
                Gone::These(digests[digests.len() - missed..].to_vec())
            }
            _ => Gone::All,
        }
    }

    /// The shared bytes with one digest more. The worker that adds it has dropped its older answer.
    pub fn says(shared: &[u8], digest: &[u8; 32]) -> Vec<u8> {
        let (count, digests) = read(shared);
        let rest = digests.len().saturating_sub(DIGESTS_MAX - 1);
        let mut bytes = count.wrapping_add(1).to_le_bytes().to_vec();
        for digest in digests[rest..].iter().chain([digest]) {
            bytes.extend(digest);
        }
        bytes
    }

    /// Its own refresh is in the shared bytes, behind those that it has just read.
    pub fn has_said(&mut self) {
        self.known = self.known.map(|known| known.wrapping_add(1));
    }
}

fn read(shared: &[u8]) -> (u64, Vec<[u8; 32]>) {
    let Some((count, digests)) = shared.split_first_chunk::<COUNT_BYTES>() else {
        return (0, Vec::new());
    };
    let digests = digests.chunks_exact(32).filter_map(|it| it.try_into().ok());
    (u64::from_le_bytes(*count), digests.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_hears_of_what_the_others_say_and_not_of_its_own() {
        let (mut one, mut other) = (Refreshed::default(), Refreshed::default());
        let nothing = || Gone::These(Vec::new());
        let mut shared = Vec::new();
        assert_eq!(one.hears(&shared), nothing());
        assert_eq!(other.hears(&shared), nothing());
        for number in 1..=3 {
            assert_eq!(one.hears(&shared), nothing());
            shared = Refreshed::says(&shared, &[number; 32]);
            one.has_said();
        }
        assert_eq!(one.hears(&shared), nothing());
        let three = [1, 2, 3].map(|number| [number; 32]).to_vec();
        assert_eq!(other.hears(&shared), Gone::These(three));
        assert_eq!(other.hears(&shared), nothing());
        // A worker that begins now has nothing to drop.
        assert_eq!(Refreshed::default().hears(&shared), nothing());
    }

    #[test]
    fn a_worker_that_has_missed_more_than_is_told_drops_everything() {
        let mut late = Refreshed::default();
        let mut shared = Vec::new();
        late.hears(&shared);
        for _ in 0..DIGESTS_MAX {
            shared = Refreshed::says(&shared, &[7; 32]);
        }
        assert_eq!(shared.len(), COUNT_BYTES + DIGESTS_MAX * 32);
        assert!(matches!(late.hears(&shared), Gone::These(all) if all.len() == DIGESTS_MAX));
        for _ in 0..=DIGESTS_MAX {
            shared = Refreshed::says(&shared, &[7; 32]);
        }
        assert_eq!(shared.len(), COUNT_BYTES + DIGESTS_MAX * 32);
        assert_eq!(late.hears(&shared), Gone::All);
    }

    #[test]
    fn bytes_that_are_not_ours_are_no_panic() {
        for length in 0..100 {
            let bytes = vec![0xff; length];
            let mut refreshed = Refreshed { known: Some(3) };
            refreshed.hears(&bytes);
            let said = Refreshed::says(&bytes, &[1; 32]);
            assert_eq!(said.len() % 32, COUNT_BYTES);
        }
    }
}
