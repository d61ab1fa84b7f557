//! What a worker has to say, until its pipe takes it.
//!
//! Callbacks of a DA server must not wait, so they never do: when the relay reads too slowly, what waits is merged, and the newest
//! value of each item stays. So the queue is bounded by the number of items, and no item is left with an old value for good. How
//! many changes went that way is said. Lanes that answer a request do wait, which slows down nobody but who asked.

use crate::relay::protocol::{Event, Failure, FromWorker, Hresult, News, ProtocolError, Reply, frame};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Values that may wait before they are merged: 10 000 items ten times a second, for two seconds.
const VALUES: usize = 200_000;

/// Entries, properties and values of answers that may wait.
const ANSWERS: usize = 100_000;

const E_OUTOFMEMORY: Hresult = 0x8007_000E_u32 as Hresult;

#[derive(Default)]
pub struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    queue: VecDeque<FromWorker>,
    values: usize,
    answers: usize,
    /// Of `values`; grows with the number of items.
    limit: usize,
    merged: usize,
    is_closed: bool,
    is_drained: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            values: 0,
            answers: 0,
            limit: VALUES,
            merged: 0,
            is_closed: false,
            is_drained: false,
        }
    }
}

impl Output {
    /// Never waits.
    pub fn event(&self, event: Event) {
        let mut state = self.lock();
        if let Event::Data { values, .. } = &event {
            state.values += weight(values);
        }
        state.queue.push_back(FromWorker::Event(event));
        if state.values > state.limit {
            state.merge();
        }
        self.changed.notify_all();
    }

    /// Waits while too many answers are there. False when nobody listens any more.
    pub fn reply(&self, id: u32, reply: Reply) -> bool {
        let mut state = self.lock();
        while state.answers > ANSWERS && !state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.answers += size(&reply);
        state.queue.push_back(FromWorker::Reply { id, reply });
        self.changed.notify_all();
        !state.is_closed
    }

    /// A reply that may not wait.
    pub fn refuse(&self, id: u32, reply: Reply) {
        self.lock().queue.push_back(FromWorker::Reply { id, reply });
        self.changed.notify_all();
    }

    /// What is there is still written.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Until all is written after `close`, or the time is over.
    pub fn drained(&self, patience: Duration) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, patience, |state| !state.is_drained);
    }

    /// Writes what comes, until `close` or until nobody reads.
    pub fn write_to(&self, mut pipe: impl Write) -> io::Result<()> {
        let mut written = Ok(());
        while let (Ok(()), Some((messages, merged))) = (&written, self.take()) {
            let mut bytes = Vec::new();
            if merged > 0 {
                let text = format!("{merged} changes were merged: the relay was slower than the DA server");
                encode(FromWorker::Event(Event::Said { text }), &mut bytes);
            }
            messages.into_iter().for_each(|message| encode(message, &mut bytes));
            written = pipe.write_all(&bytes).and_then(|()| pipe.flush());
        }
        let mut state = self.lock();
        state.is_closed = true;
        state.is_drained = true;
        self.changed.notify_all();
        written
    }

    fn take(&self) -> Option<(VecDeque<FromWorker>, usize)> {
        let mut state = self.lock();
        while state.queue.is_empty() {
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.values, state.answers, state.limit) = (0, 0, VALUES);
        self.changed.notify_all();
        Some((mem::take(&mut state.queue), mem::take(&mut state.merged)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// All values that wait become one event for each group, at the front, with the newest of each item.
    fn merge(&mut self) {
        let mut groups: Vec<(u32, Vec<News>)> = Vec::new();
        let mut places: HashMap<(u32, u32), (usize, usize)> = HashMap::new();
        for message in mem::take(&mut self.queue) {
            let FromWorker::Event(Event::Data { group, values }) = message else {
                self.queue.push_back(message);
                continue;
            };
            let at = groups.iter().position(|(known, _)| *known == group).unwrap_or_else(|| {
                groups.push((group, Vec::new()));
                groups.len() - 1
            });
            for (item, value) in values {
                let all = &mut groups[at].1;
                let place = *places.entry((group, item)).or_insert((at, all.len()));
                match all.get_mut(place.1) {
                    Some(older) => {
                        older.1 = value;
                        self.merged += 1;
                    }
                    None => all.push((item, value)),
                }
            }
        }
        self.values = groups.iter().map(|(_, values)| weight(values)).sum();
        self.limit = VALUES.max(2 * self.values);
        for (group, values) in groups {
            self.queue.push_front(FromWorker::Event(Event::Data { group, values }));
        }
    }
}

/// In units of a plain value.
fn weight(values: &[News]) -> usize {
    values.iter().map(|(_, value)| 1 + value.as_ref().map_or(0, |reading| reading.value.bytes() / 64)).sum()
}

fn size(reply: &Reply) -> usize {
    match reply {
        Reply::Entries { entries, .. } => entries.len(),
        Reply::Properties(all) => all.iter().map(|one| one.as_ref().map_or(1, Vec::len)).sum(),
        Reply::Values(all) => all.len(),
        Reply::Written(all) => all.len(),
        Reply::Added(all) => all.len(),
        _ => 1,
    }
}

/// In as many frames as it takes. What does not fit and cannot be split is said to be too large.
fn encode(message: FromWorker, bytes: &mut Vec<u8>) {
    match frame(&message) {
        Ok(frame) => bytes.extend_from_slice(&frame),
        Err(ProtocolError::TooLong(_)) => smaller(message).into_iter().for_each(|part| encode(part, bytes)),
        // Nothing of ours is unknown to our own encoding.
        Err(ProtocolError::Malformed(error)) => tracing::error!(%error, "A message was not sent."),
    }
}

fn smaller(message: FromWorker) -> Vec<FromWorker> {
    match message {
        FromWorker::Event(Event::Data { group, mut values }) if values.len() > 1 => {
            let rest = values.split_off(values.len() / 2);
            [values, rest].map(|values| FromWorker::Event(Event::Data { group, values })).into()
        }
        FromWorker::Event(Event::Data { group, values }) => {
            let values = values.into_iter().map(|(item, _)| (item, Err(E_OUTOFMEMORY))).collect();
            vec![FromWorker::Event(Event::Data { group, values })]
        }
        FromWorker::Reply { id, reply: Reply::Entries { mut entries, more } } if entries.len() > 1 => {
            let rest = entries.split_off(entries.len() / 2);
            let part = |entries, more| FromWorker::Reply { id, reply: Reply::Entries { entries, more } };
            vec![part(entries, true), part(rest, more)]
        }
        FromWorker::Reply { id, .. } => {
            let call = "(the answer is too large)".into();
            vec![FromWorker::Reply { id, reply: Reply::Failed(Failure { call, hresult: E_OUTOFMEMORY }) }]
        }
        FromWorker::Event(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::protocol::{DaValue, LONGEST_FRAME, Reading, length, parse};

    fn value(number: f64) -> Result<Reading, Hresult> {
        Ok(Reading { value: DaValue::R8(number), quality: 192, time: 0 })
    }

    fn data(group: u32, values: Vec<News>) -> Event {
        Event::Data { group, values }
    }

    fn written(output: &Output) -> Vec<FromWorker> {
        let mut bytes = Vec::new();
        output.close();
        output.write_to(&mut bytes).unwrap();
        let (mut at, mut all) = (0, Vec::new());
        while at < bytes.len() {
            let end = at + 4 + length(bytes[at..at + 4].try_into().unwrap()).unwrap();
            all.push(parse(&bytes[at + 4..end]).unwrap());
            at = end;
        }
        all
    }

    #[test]
    fn what_is_said_arrives_in_its_order() {
        let output = Output::default();
        output.event(data(1, vec![(1, value(1.0))]));
        assert!(output.reply(7, Reply::Done));
        output.event(data(1, vec![(1, value(2.0))]));
        let all = written(&output);
        assert_eq!(all[0], FromWorker::Event(data(1, vec![(1, value(1.0))])));
        assert_eq!(all[1], FromWorker::Reply { id: 7, reply: Reply::Done });
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn of_too_many_the_newest_of_each_item_stays() {
        let output = Output::default();
        output.event(data(2, vec![(5, value(0.5))]));
        for round in 0..1000 {
            output.event(data(1, (0..1000).map(|item| (item, value(f64::from(round)))).collect()));
        }
        output.event(data(1, vec![(3, Err(-1))]));
        let (mut seen, mut events, mut said) = (HashMap::new(), 0, String::new());
        for message in written(&output) {
            match message {
                FromWorker::Event(Event::Data { group, values }) => {
                    events += 1;
                    seen.extend(values.into_iter().map(|(item, value)| ((group, item), value)));
                }
                FromWorker::Event(Event::Said { text }) => said = text,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen.len(), 1001);
        assert_eq!(seen[&(1, 7)], value(999.0));
        assert_eq!(seen[&(1, 3)], Err(-1));
        assert_eq!(seen[&(2, 5)], value(0.5));
        assert!(events < 400 && said.contains("merged"), "{events} {said}");
    }

    #[test]
    fn what_is_longer_than_a_frame_is_split_or_refused() {
        let output = Output::default();
        let text = |length| Ok(Reading { value: DaValue::Text("x".repeat(length)), quality: 192, time: 0 });
        output.event(data(1, vec![(1, text(LONGEST_FRAME / 2)), (2, text(LONGEST_FRAME / 2)), (3, value(1.0))]));
        output.event(data(1, vec![(4, text(LONGEST_FRAME))]));
        output.reply(1, Reply::Values(vec![text(LONGEST_FRAME)]));
        let all = written(&output);
        assert_eq!(all.len(), 4);
        assert_eq!(all[2], FromWorker::Event(data(1, vec![(4, Err(E_OUTOFMEMORY))])));
        assert!(matches!(&all[3], FromWorker::Reply { id: 1, reply: Reply::Failed(_) }));
    }

    #[test]
    fn an_answer_waits_for_room_but_not_for_ever() {
        let output = Output::default();
        let many = || Reply::Written(vec![0; ANSWERS + 1]);
        assert!(output.reply(1, many()));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| output.reply(2, Reply::Done));
            output.close();
            assert!(!second.join().unwrap());
        });
    }
}
