//! The last requests, by id, with the newest answer to each: whoever asks twice is answered twice, and nothing is done twice.

use super::answer::Answer;
use std::collections::VecDeque;

/// As many as a fleet tool may have sent again after a loss of the connection.
const IDS: usize = 64;
/// Bytes of answers; one that is large pushes older ones out.
const BYTES: usize = 2 << 20;

#[derive(Default)]
pub(super) struct Memory(VecDeque<Answer>);

impl Memory {
    /// The newest answer to a request of this id.
    pub(super) fn seen(&self, id: &str) -> Option<&Answer> {
        self.0.iter().find(|answer| answer.id == id)
    }

    pub(super) fn keep(&mut self, answer: Answer) {
        match self.0.iter_mut().find(|known| known.id == answer.id) {
            Some(known) => *known = answer,
            None => self.0.push_back(answer),
        }
        while self.0.len() > IDS || self.0.len() > 1 && self.0.iter().map(Answer::size).sum::<usize>() > BYTES {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Address, Asked, State};
    use super::*;
    use crate::model::{Role, Timestamp};
    use crate::mqtt::line::Received;

    fn answer(id: &str, state: State, reason: &str) -> Answer {
        let received = Received {
            topic: String::new(),
            payload: Default::default(),
            retain: false,
            properties: Default::default(),
        };
        let asked = Asked::new(Role::Viewer, Err(b""));
        let address = Address::of("b", id, "list", asked, &received).unwrap();
        Answer::new(&address, state, Timestamp::UNIX_EPOCH, Some(reason.into()), None)
    }

    #[test]
    fn the_newest_answer_is_known_and_the_oldest_ids_go() {
        let mut memory = Memory::default();
        memory.keep(answer("a", State::Accepted, ""));
        memory.keep(answer("a", State::Done, ""));
        assert_eq!(memory.seen("a").unwrap().state, State::Done);
        (1..IDS).for_each(|number| memory.keep(answer(&number.to_string(), State::Done, "")));
        assert!(memory.seen("a").is_some());
        memory.keep(answer("b", State::Done, ""));
        assert!(memory.seen("a").is_none() && memory.seen("1").is_some());
    }

    #[test]
    fn large_answers_cost_bounded_memory() {
        let mut memory = Memory::default();
        for id in ["a", "b", "c"] {
            memory.keep(answer(id, State::Done, &"x".repeat(BYTES / 2)));
        }
        assert!(memory.seen("a").is_none() && memory.seen("b").is_some());
        memory.keep(answer("d", State::Done, &"x".repeat(2 * BYTES)));
        assert!(memory.seen("c").is_none() && memory.seen("d").is_some());
    }
}
