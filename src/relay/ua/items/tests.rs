//! Items and groups, and the steps that bring them into a DA server, without one.

use super::groups::GROUPS;
use super::steps::{FIRST, PROBE, QUIET, RETRY};
use super::*;
use crate::relay::protocol::{AddedItem, Failure, Hresult};
use ::opcua::types::NumericRange;

const RATE: Duration = Duration::from_millis(100);
const UNKNOWN: Hresult = 0xC004_0007_u32 as i32;

fn handle(id: u32) -> MonitoredItemHandle {
    MonitoredItemHandle { subscription_id: 1, monitored_item_id: id }
}

fn items() -> Items {
    Items::new(Times::new("test", 0))
}

fn join(items: &Items, id: u32, item: &str, rate: Duration) {
    let client =
        Client::new(handle(id), 1, UserToken(id.to_string()), Some(rate), NumericRange::None, Filtered::No, true);
    items.join(item, &NodeId::new(2, item), Setting::new(rate, None), client);
}

fn step(items: &Items) -> Step {
    items.next_step().unwrap().1
}

fn names(step: &Step) -> Vec<&str> {
    match step {
        Step::AddItems(_, items) => items.iter().map(|item| &item.item_id[..]).collect(),
        other => panic!("{other:?}"),
    }
}

fn accept(items: &Items, step: Step) {
    let added = Ok(AddedItem { canonical_type: 3, access_rights: 1 });
    let answer = match &step {
        Step::AddGroup(..) | Step::PollGroup(..) => Reply::Group { revised_rate: 150, result: 0 },
        Step::AddItems(_, new) => {
            Reply::Added(new.iter().map(|item| if item.item_id == "unknown" { Err(UNKNOWN) } else { added }).collect())
        }
        _ => Reply::Done,
    };
    let life = items.lock().life;
    items.done(life, step, Ok(answer));
}

/// Until nothing is left to do.
fn settle(items: &Items) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Ok((_, step)) = items.next_step() {
        steps.push(step.clone());
        accept(items, step);
    }
    steps
}

#[tokio::test(start_paused = true)]
async fn an_item_of_many_clients_is_one_of_the_da_server() {
    let items = items();
    join(&items, 1, "a", RATE);
    assert!(items.next_step().is_err(), "the DA server is not there");
    items.up(1);
    accept(&items, step(&items));
    join(&items, 2, "a", RATE);
    join(&items, 3, "b", RATE);
    let add = step(&items);
    assert_eq!(names(&add), ["a", "b"]);
    assert!(!items.are_settled(&[handle(1)]));
    accept(&items, add);
    assert!(items.are_settled(&[handle(1), handle(2), handle(3)]));
    assert!(items.next_step().is_err());

    items.leave(handle(1));
    assert!(items.next_step().is_err(), "another still wants it");
    items.leave(handle(2));
    assert!(matches!(&settle(&items)[..], [Step::RemoveItems(_, handles)] if handles.len() == 1));
    items.leave(handle(3));
    assert!(matches!(settle(&items)[..], [Step::RemoveGroup(_)]));
    assert_eq!(items.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_reconnect_all_is_done_again_in_chunks_and_refreshed() {
    let items = items();
    items.up(1);
    for id in 0..2500 {
        join(&items, id, &format!("item {id}"), RATE);
    }
    settle(&items);
    items.down(Phase::Frozen);
    assert_eq!(items.lock().absent, StatusCode::BadNoCommunication);
    assert!(items.next_step().is_err());
    items.up(2);
    let steps = settle(&items);
    let kinds: Vec<usize> = steps[1..4].iter().map(|step| names(step).len()).collect();
    assert!(matches!((&steps[0], &steps[4]), (Step::AddGroup(..), Step::Refresh(_))));
    assert_eq!((steps.len(), kinds), (5, vec![1000, 1000, 500]));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_again_later() {
    let items = items();
    items.up(1);
    join(&items, 1, "unknown", RATE);
    join(&items, 2, "known", RATE);
    settle(&items);
    assert_eq!(items.joined(handle(1)).unwrap().standing, Standing::Refused(StatusCode::BadNodeIdUnknown));
    tokio::time::advance(RETRY).await;
    assert_eq!(names(&step(&items)), ["unknown"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_falls_silent_is_asked_and_then_given_up() {
    let items = items();
    items.up(1);
    join(&items, 1, "a", RATE);
    settle(&items);
    items.data(1, vec![]);
    tokio::time::advance(QUIET).await;
    assert_eq!(settle(&items), [Step::Refresh(1)]);
    items.data(1, vec![]);
    tokio::time::advance(PROBE).await;
    assert!(items.next_step().is_err(), "it spoke");
    tokio::time::advance(QUIET).await;
    assert_eq!(settle(&items), [Step::Refresh(1)]);
    tokio::time::advance(PROBE).await;
    assert_eq!(step(&items), Step::Silent);
}

fn fail(items: &Items, step: Step) {
    let failure = Failure { call: "Refresh2".into(), hresult: 0x8000_4001_u32 as Hresult };
    let life = items.lock().life;
    items.done(life, step, Err(AskError::Failed(failure)));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_cannot_be_asked_is_made_anew_once_and_then_left_alone() {
    let items = items();
    items.up(1);
    join(&items, 1, "a", RATE);
    settle(&items);
    for is_first in [true, false] {
        items.data(1, vec![]);
        tokio::time::advance(QUIET).await;
        let refresh = step(&items);
        assert_eq!(refresh, Step::Refresh(1));
        fail(&items, refresh);
        let steps = settle(&items);
        match is_first {
            true => assert!(matches!(steps[..], [Step::AddGroup(1, _), Step::AddItems(1, _)]), "{steps:?}"),
            false => assert_eq!(steps, []),
        }
    }
    tokio::time::advance(20 * QUIET).await;
    assert!(items.next_step().is_err(), "its silence says nothing");
    items.down(Phase::Waiting);
    items.up(2);
    settle(&items);
    items.data(1, vec![]);
    tokio::time::advance(QUIET).await;
    assert_eq!(step(&items), Step::Refresh(1), "another life, another server");
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_answer_counts() {
    let items = items();
    items.up(1);
    join(&items, 1, "a", RATE);
    settle(&items);
    items.data(1, vec![]);
    tokio::time::advance(QUIET).await;
    let refresh = step(&items);
    items.data(1, vec![]);
    accept(&items, refresh);
    tokio::time::advance(PROBE).await;
    assert!(items.next_step().is_err(), "it spoke");
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_callbacks_never_come_is_polled() {
    let items = items();
    items.up(1);
    join(&items, 1, "a", RATE);
    settle(&items);
    assert_eq!(items.next_step().unwrap_err(), Instant::now() + FIRST, "sooner than anything else");
    tokio::time::advance(FIRST).await;
    assert_eq!(settle(&items), [Step::Refresh(1)]);
    tokio::time::advance(PROBE).await;
    let steps = settle(&items);
    assert!(matches!(steps[..], [Step::PollGroup(1, _), Step::AddItems(1, _)]), "{steps:?}");
    tokio::time::advance(20 * QUIET).await;
    assert!(items.next_step().is_err(), "once");
    items.data(1, vec![]);
    tokio::time::advance(QUIET).await;
    assert_eq!(step(&items), Step::Refresh(1), "one that is polled speaks at each poll");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_item_is_not_sampled_and_a_modified_one_changes_its_group() {
    let items = items();
    items.up(1);
    join(&items, 1, "a", RATE);
    settle(&items);
    items.enable(handle(1), false);
    assert!(matches!(settle(&items)[..], [Step::RemoveItems(..)]));
    items.enable(handle(1), true);
    assert!(matches!(settle(&items)[..], [Step::AddItems(..)]));
    items.modify(handle(1), 1, Setting::new(3 * RATE, Some(5.0)), Some(3 * RATE), Filtered::Deadband);
    let steps = settle(&items);
    assert!(matches!(steps[..], [Step::RemoveGroup(1), Step::AddGroup(2, _), Step::AddItems(2, _)]), "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_groups() {
    let items = items();
    for id in 0..500 {
        join(&items, id, "a", Duration::from_millis(u64::from(id) * 100));
    }
    assert!(items.lock().groups.len() <= GROUPS);
    assert_eq!(items.count(), 500);
}

#[test]
fn a_rate_has_two_digits() {
    let rate = |millis| Setting::new(Duration::from_millis(millis), None).rate;
    assert_eq!([0, 5, 99, 100, 1234, 60_000, u64::MAX].map(rate), [0, 5, 99, 100, 1200, 60_000, 4_200_000_000]);
}

/// A value of so many milliseconds.
fn value(millis: i64, value: i32) -> DataValue {
    let ticks = DateTime::ymd(2026, 1, 1).ticks() + millis * 10_000;
    DataValue { value: Some(value.into()), source_timestamp: Some(ticks.into()), ..DataValue::default() }
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_is_the_servers_own_or_none() {
    let client = |interval| {
        Client::new(handle(1), 1, UserToken(String::new()), interval, NumericRange::None, Filtered::No, true)
    };
    let given = |client: &mut Client, millis, number| {
        let stamp = client.of(&value(millis, number)).source_timestamp;
        stamp.map(|stamp| (stamp.ticks() - DateTime::ymd(2026, 1, 1).ticks()) / 10_000)
    };
    let mut as_it_comes = client(Some(Duration::ZERO));
    for (millis, number) in [(0, 1), (93, 2), (94, 3), (94, 4), (299, 5)] {
        assert_eq!(given(&mut as_it_comes, millis, number), Some(millis));
    }
    assert_eq!(given(&mut as_it_comes, 200, 6), None, "set back");
    assert_eq!(given(&mut as_it_comes, 210, 7), None);
    assert_eq!(given(&mut as_it_comes, 220, 8), Some(220));

    let mut modified = client(Some(RATE));
    let stamps = [(0, 1), (100, 2), (193, 3), (293, 4), (350, 5)].map(|(millis, n)| given(&mut modified, millis, n));
    assert_eq!(stamps, [None, Some(100), None, Some(293), None], "what the crate would change");
    assert_eq!(given(&mut client(None), 0, 1), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_status_alone_is_seen_without_a_filter() {
    let items = items();
    join(&items, 1, "a", RATE);
    let mut state = items.lock();
    let member = state.members.values_mut().next().unwrap();
    let mut take = |value: DataValue| {
        let mut got = Vec::new();
        member.take(value, |value, _| got.push(value.value));
        got
    };
    let (good, uncertain) = (StatusCode::Good, StatusCode::UncertainLastUsableValue);
    assert_eq!(take(DataValue { status: Some(good), ..value(0, 5) }), [Some(5.into())]);
    assert_eq!(take(DataValue { status: Some(uncertain), ..value(200, 5) }), [None, Some(5.into())]);
    assert_eq!(take(DataValue { status: Some(good), ..value(400, 6) }), [Some(6.into())]);
}

#[tokio::test(start_paused = true)]
async fn who_may_read_no_longer_gets_nothing_else() {
    let items = items();
    for id in [1, 2] {
        join(&items, id, "a", RATE);
    }
    let take = |number| {
        let mut state = items.lock();
        let member = state.members.values_mut().next().unwrap();
        let mut got = Vec::new();
        member.take(value(i64::from(number) * 1000, number), |value, to| {
            got.push((to.monitored_item_id, value.status()))
        });
        got
    };
    let (good, denied) = (StatusCode::Good, StatusCode::BadUserAccessDenied);
    assert_eq!(take(1), [(1, good), (2, good)]);
    items.judge(|token| token.0 != "2");
    assert_eq!(take(2), [(1, good), (2, denied)]);
    items.judge(|_| true);
    assert_eq!(take(3), [(1, good), (2, good)]);
}
