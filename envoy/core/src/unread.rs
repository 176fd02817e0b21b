//! Long answers of the filter that clients may still have to read, bounded in bytes.
//!
//! Envoy takes an answer of a module whole, whatever `per_connection_buffer_limit_bytes` says, and
//! holds what the client does not read. It does not tell when the client has read it: for Envoy the
//! request is at its end as soon as the answer is in the connection's buffer. So an answer counts
//! until its client begins another request on that connection, or for as long as a slow client
//! takes. An answer that finds no room is not handed over; the provider is asked, whose answers
//! Envoy reads only as fast as the client does.

use std::collections::VecDeque;

/// Upper bound of the bytes of unread answers in one module.
pub const UNREAD_BYTES_MAX: usize = 128 << 20;

/// A shorter answer does not count: Envoy holds about as much of any answer that is read slowly.
const COUNTED_BYTES_MIN: usize = 256 << 10;

/// The pace of a slow client: a line of 8 Mbit/s.
const BYTES_PER_MS: usize = 1 << 10;

/// An answer that counts, until its connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The answers that count.
#[derive(Debug, Default)]
pub struct Unread {
    bytes: usize,
    /// In the order in which they were handed over.
    answers: VecDeque<Handed>,
    count: u64,
}

#[derive(Debug)]
struct Handed {
    number: u64,
    connection: Option<u64>,
    bytes: usize,
    at_ms: u64,
}

impl Handed {
    /// Whether even a slow client has read it. After a clock was set back this is unknown: false.
    fn is_read(&self, now_ms: u64) -> bool {
        let takes_ms = (self.bytes / BYTES_PER_MS) as u64;
        now_ms
            .checked_sub(self.at_ms)
            .is_none_or(|since| since >= takes_ms)
    }
}

impl Unread {
    /// Whether an answer of that length may be handed over. If it counts, its ticket.
    pub fn hand_over(&mut self, bytes: usize, now_ms: u64) -> Result<Option<Ticket>, Full> {
        if bytes < COUNTED_BYTES_MIN {
            return Ok(None);
        }
        self.forget(|handed| handed.is_read(now_ms));
        // One answer always fits; `entry_bytes_max` bounds its length.
        if self.bytes + bytes > UNREAD_BYTES_MAX && self.bytes > 0 {
            return Err(Full);
        }
        self.count += 1;
        self.bytes += bytes;
        self.answers.push_back(Handed {
            number: self.count,
            connection: None,
            bytes,
            at_ms: now_ms,
        });
        Ok(Some(Ticket(self.count)))
    }

    /// The answer of this ticket goes to this connection, which brings one request after the other.
    pub fn goes_to(&mut self, ticket: Ticket, connection: u64) {
        let mut answers = self.answers.iter_mut();
        if let Some(handed) = answers.find(|handed| handed.number == ticket.0) {
            handed.connection = Some(connection);
        }
    }

    /// The client of this connection has begun another request, so it has read the answer to its
    /// last one.
    pub fn heard_from(&mut self, connection: u64) {
        self.forget(|handed| handed.connection == Some(connection));
    }

    /// Whether no answer counts.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The bytes of the answers that count.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget(&mut self, is_read: impl Fn(&Handed) -> bool) {
        self.answers.retain(|handed| !is_read(handed));
        self.bytes = self.answers.iter().map(|handed| handed.bytes).sum();
    }
}

/// The unread answers have used up their room.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = 10 << 20;

    fn fill(unread: &mut Unread) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while let Ok(ticket) = unread.hand_over(LONG, 0) {
            tickets.extend(ticket);
            assert!(unread.bytes() <= UNREAD_BYTES_MAX);
        }
        tickets
    }

    #[test]
    fn long_answers_that_are_not_read_stay_within_their_bound() {
        let mut unread = Unread::default();
        assert_eq!(fill(&mut unread).len(), UNREAD_BYTES_MAX / LONG);
        assert_eq!(unread.hand_over(COUNTED_BYTES_MIN - 1, 0), Ok(None));
        assert_eq!(unread.hand_over(LONG, 10_239), Err(Full));
        // 10 MiB at 1 MiB/s.
        assert!(unread.hand_over(LONG, 10_240).is_ok());
        assert_eq!(unread.bytes(), LONG);
    }

    #[test]
    fn a_client_that_asks_again_has_read() {
        let mut unread = Unread::default();
        let tickets = fill(&mut unread);
        unread.goes_to(tickets[3], 7);
        unread.goes_to(tickets[4], 8);
        unread.heard_from(9);
        assert_eq!(unread.hand_over(LONG, 0), Err(Full));
        unread.heard_from(7);
        assert!(unread.hand_over(LONG, 0).is_ok());
        assert_eq!(unread.hand_over(LONG, 0), Err(Full));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up() {
        let mut unread = Unread::default();
        assert!(unread.hand_over(UNREAD_BYTES_MAX, 1_000_000).is_ok());
        assert_eq!(unread.hand_over(LONG, 1_000_001), Err(Full));
        assert!(unread.hand_over(LONG, 999_999).is_ok());
    }

    #[test]
    fn an_answer_longer_than_the_bound_is_handed_over_alone() {
        let mut unread = Unread::default();
        assert!(unread.hand_over(UNREAD_BYTES_MAX + 1, 0).is_ok());
        assert_eq!(unread.hand_over(COUNTED_BYTES_MIN, 0), Err(Full));
    }
}
