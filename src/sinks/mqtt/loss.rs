//! Says that samples are being lost: once when it begins and once when it is over, not for each.

use tracing::{error, info};

#[derive(Debug, Default)]
pub(super) struct Loss {
    seen: u64,
    /// The count when the present period of loss began.
    before: Option<u64>,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Begins(u64),
    Ended(u64),
}

impl Loss {
    /// To be called regularly with the count of all samples lost so far.
    pub(super) fn look(&mut self, lost: u64) {
        match self.word(lost) {
            Some(Word::Begins(samples)) => {
                error!(samples, "Samples are lost for the MQTT broker: they come faster than the line takes them.");
            }
            Some(Word::Ended(samples)) => info!(samples, "No more samples are being lost for the MQTT broker."),
            None => {}
        }
    }

    fn word(&mut self, lost: u64) -> Option<Word> {
        let grew = lost - std::mem::replace(&mut self.seen, lost);
        match (grew, self.before) {
            (0, Some(before)) => {
                self.before = None;
                Some(Word::Ended(lost - before))
            }
            (1.., None) => {
                self.before = Some(lost - grew);
                Some(Word::Begins(grew))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_of_loss_is_told_twice() {
        let mut loss = Loss::default();
        let words: Vec<_> = [0, 5, 9, 9, 9, 10, 10].map(|lost| loss.word(lost)).into();
        let wanted = [
            None,
            Some(Word::Begins(5)),
            None,
            Some(Word::Ended(9)),
            None,
            Some(Word::Begins(1)),
            Some(Word::Ended(1)),
        ];
        assert_eq!(words, wanted);
    }
}
