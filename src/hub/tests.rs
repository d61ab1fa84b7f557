use super::*;
use crate::model::{DataType, TagSpec};

fn hub() -> Hub {
    Hub::new(Clock::real())
}

fn spec(name: &str) -> TagSpec {
    TagSpec::new(TagName::new(name).unwrap(), DataType::Int32)
}

fn samples(hub: &Hub, tags: &[TagId], value: i32) -> Vec<Sample> {
    tags.iter().map(|&tag| Sample::good(tag, Value::Int32(value), hub.now())).collect()
}

#[tokio::test]
async fn a_tag_waits_for_its_first_value_then_has_it_and_is_bad_when_its_source_ends() {
    let hub = hub();
    let source = hub.register("line 1", vec![spec("speed")]).unwrap();
    let tag = hub.find(&TagName::new("speed").unwrap()).unwrap();
    assert_eq!(hub.read(tag).quality.status, Status::BAD_WAITING_FOR_INITIAL_DATA);

    hub.publish(samples(&hub, source.tags(), 7));
    assert_eq!(hub.read(tag).value, Value::Int32(7));

    drop(source);
    let last = hub.read(tag);
    assert_eq!(last.quality.to_string(), "BadNoCommunication: line 1 has stopped");
    assert_eq!(last.value, Value::Int32(7), "the last value is kept");
}

#[tokio::test]
async fn latest_skips_but_ends_with_the_newest() {
    let hub = hub();
    let source = hub.register("s", vec![spec("a"), spec("b")]).unwrap();
    let mut latest = hub.latest();
    for value in 0..1000 {
        hub.publish(samples(&hub, source.tags(), value));
    }
    assert_eq!(latest.changed().await, source.tags(), "each tag once");
    assert_eq!(hub.read(source.tags()[0]).value, Value::Int32(999));
    assert!(tokio::time::timeout(Duration::from_millis(1), latest.changed()).await.is_err());
    hub.publish(samples(&hub, &source.tags()[1..], 1));
    assert_eq!(latest.changed().await, &source.tags()[1..]);
}

#[tokio::test]
async fn every_delivers_in_order_and_counts_what_it_loses() {
    let hub = hub();
    let source = hub.register("s", vec![spec("a"), spec("b")]).unwrap();
    let mut every = hub.every(3);
    for value in 0..5 {
        hub.publish(samples(&hub, source.tags(), value));
    }
    for value in 0..3 {
        let batch = every.next().await.unwrap();
        assert_eq!(batch[0].value, Value::Int32(value));
    }
    assert!(every.try_next().is_none());
    assert_eq!(every.lost(), 4, "two batches of two");
}

#[tokio::test]
async fn what_waits_for_a_reader_is_bounded_in_samples_too_and_registrations_are_told_apart() {
    let hub = hub();
    let (mut every, mut registered) = (hub.every(1000), hub.registered());
    let source = hub.register("s", vec![spec("a")]).unwrap();
    assert_eq!(registered.changed().await, source.tags());
    let batch = |count: usize| vec![Sample::good(source.tags()[0], Value::Int32(1), hub.now()); count];
    hub.publish(batch(300_000));
    hub.publish(batch(1));
    assert_eq!(every.lost(), 1, "the large one came alone");
    assert_eq!(every.next().await.unwrap().len(), 300_000);
    hub.publish(batch(150_000));
    hub.publish(batch(60_000));
    hub.publish(batch(50_000));
    assert_eq!(every.lost(), 60_001);
    drop((every.try_next().unwrap(), every.try_next().unwrap()));
    assert!(every.try_next().is_none());
    let publications = tokio::time::timeout(std::time::Duration::from_millis(1), registered.changed());
    assert!(publications.await.is_err(), "a publication is no registration");
}

#[tokio::test]
async fn a_write_goes_to_the_owner_and_its_answer_comes_back() {
    let hub = hub();
    let mut source = hub.register("s", vec![spec("set").writable(), spec("fixed")]).unwrap();
    let (set, fixed) = (source.tags()[0], source.tags()[1]);
    let owner = async {
        let request = source.next_write().await;
        assert_eq!((request.tag, &request.value), (set, &Value::Int32(5)));
        request.reply.send(Err(Quality::new(Status::BAD_OUT_OF_RANGE, "0..4"))).unwrap();
    };
    let (outcome, ()) = tokio::join!(hub.write(set, Value::Int32(5)), owner);
    assert_eq!(outcome.unwrap_err().status, Status::BAD_OUT_OF_RANGE);

    let error = hub.write(fixed, Value::Int32(5)).await.unwrap_err();
    assert_eq!(error.status, Status::BAD_NOT_WRITABLE);
    let error = hub.write(set, Value::Double(5.0)).await.unwrap_err();
    assert_eq!(error.to_string(), "BadTypeMismatch: set is of type Int32, not Double");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_answers_ends() {
    let hub = hub();
    let source = hub.register("s", vec![spec("set").writable()]).unwrap();
    let tag = source.tags()[0];
    assert_eq!(hub.write(tag, Value::Int32(1)).await.unwrap_err().status, Status::BAD_TIMEOUT);
    drop(source);
    assert_eq!(hub.write(tag, Value::Int32(1)).await.unwrap_err().status, Status::BAD_NO_COMMUNICATION);
}

#[tokio::test]
async fn what_is_learnt_of_a_tag_later_is_told_once_and_its_sample_stays() {
    let hub = hub();
    let mut source = hub.register("s", vec![spec("a"), spec("b")]).unwrap();
    hub.publish(samples(&hub, source.tags(), 7));
    let (since, _) = hub.tags_since(0);
    let mut structure = hub.structure();
    let (a, b) = (source.tags()[0], source.tags()[1]);
    source.respec([(a, spec("a").unit("mm")), (b, spec("b"))]);
    assert!(structure.has_changed().unwrap());
    structure.mark_unchanged();
    let changes = hub.tags_since(since).1;
    assert_eq!(changes.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [a]);
    assert_eq!((hub.spec(a).unit.as_str(), hub.read(a).value), ("mm", Value::Int32(7)));
    source.respec([(a, spec("a").unit("mm"))]);
    assert!(!structure.has_changed().unwrap(), "it was known");
}

#[tokio::test]
async fn names_are_unique_and_no_tag_is_a_folder() {
    let hub = hub();
    let _first = hub.register("first", vec![spec("a/b"), spec("c")]).unwrap();
    let refused = |specs: &[&str]| {
        hub.register("second", specs.iter().map(|name| spec(name)).collect()).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(refused(&["c"]), "tag c of second exists already: first has it");
    assert_eq!(refused(&["x", "x"]), "tag x of second exists already: second has it");
    assert!(refused(&["a"]).contains("folder"), "a is the folder of a/b");
    assert!(refused(&["a/b/c"]).contains("folder"), "a/b is a tag");
    assert!(refused(&["y/z", "y"]).contains("folder"));
    assert_eq!(hub.tags().len(), 2, "a refused batch leaves nothing behind");
}

#[tokio::test]
async fn new_tags_are_announced() {
    let hub = hub();
    let mut structure = hub.structure();
    structure.mark_unchanged();
    let _source = hub.register("s", vec![spec("a")]).unwrap();
    assert!(structure.has_changed().unwrap());
    assert_eq!(hub.tags()[0].1.name.as_str(), "a");
}

#[tokio::test]
async fn a_tag_whose_owner_has_ended_is_registered_anew_under_its_id_or_retired() {
    let hub = hub();
    let names = ["a/x", "a/y"];
    let first = hub.register("first", names.map(spec).into()).unwrap();
    let [x, y] = [first.tags()[0], first.tags()[1]];
    let (known, all) = hub.tags_since(0);
    assert_eq!(all.len(), 2);
    let structure = hub.structure();
    drop(first);

    let again = hub.register("second", vec![spec("a/x")]).unwrap();
    assert_eq!(again.tags(), [x]);
    assert_eq!(hub.tags_since(known).1.len(), 0, "it is what it was");
    assert!(!structure.has_changed().unwrap());
    assert_eq!(hub.read(x).quality.status, Status::BAD_WAITING_FOR_INITIAL_DATA);

    hub.retire();
    assert!(structure.has_changed().unwrap());
    let (known, gone) = hub.tags_since(known);
    assert_eq!(gone.iter().map(|(tag, spec)| (*tag, spec.is_some())).collect::<Vec<_>>(), [(y, false)]);
    assert_eq!(hub.read(y).quality.status, Status::BAD_NODE_ID_UNKNOWN);
    assert_eq!((hub.find(&spec("a/y").name), hub.tags().len()), (None, 1));

    drop(again);
    let other = TagSpec::new(TagName::new("a/x").unwrap(), DataType::String);
    let _third = hub.register("third", vec![other.clone(), spec("a/y")]).unwrap();
    let (_, changed) = hub.tags_since(known);
    assert_eq!(changed.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [x, y]);
    assert_eq!(changed[0].1.as_deref(), Some(&other));
}

#[tokio::test]
async fn a_folder_is_free_for_a_tag_when_nobody_holds_a_tag_in_it() {
    let hub = hub();
    let (one, two) =
        (hub.register("one", vec![spec("a/b/c")]).unwrap(), hub.register("two", vec![spec("a/b/d")]).unwrap());
    drop(one);
    let refused = hub.register("three", vec![spec("a/b")]).map(|_| ()).unwrap_err();
    assert!(refused.to_string().ends_with("tag a/b/d exclude each other: one is the folder of the other"), "{refused}");
    drop(two);
    hub.register("three", vec![spec("a/b")]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_live_tag_is_asked_for_unless_its_sample_is_new_enough() {
    let hub = Hub::new(Clock::simulated(std::time::UNIX_EPOCH));
    let mut source = hub.register("s", vec![spec("live").live(), spec("told")]).unwrap();
    let tags = source.tags().to_vec();
    hub.publish(samples(&hub, &tags, 1));
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    let start = tokio::time::Instant::now();
    hub.refresh(&tags, 2 * second).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody was asked");

    let asked = hub.refresh(&tags, second);
    let owner = async {
        let Request::Refresh { tags: wanted, done } = source.next_request().await else { panic!("not a refresh") };
        assert_eq!(wanted, tags[..1]);
        hub.publish(samples(&hub, &wanted, 2));
        drop(done);
    };
    let ((), ()) = tokio::join!(asked, owner);
    assert_eq!(hub.read(tags[0]).value, Value::Int32(2));

    hub.refresh(&tags[1..], Duration::ZERO).await;
    let start = tokio::time::Instant::now();
    hub.refresh(&tags, Duration::ZERO).await;
    assert_eq!(start.elapsed(), 2 * second, "an owner that does not answer is not waited for");
    drop(source);
    hub.refresh(&tags, Duration::ZERO).await;
}

#[tokio::test]
async fn an_owner_may_get_further_tags() {
    let hub = hub();
    let mut source = hub.register("s", vec![spec("a")]).unwrap();
    source.extend(vec![spec("b").writable()]).unwrap();
    assert!(source.extend(vec![spec("c"), spec("a")]).is_err());
    assert_eq!(source.tags().len(), 2);
    let late = source.tags()[1];
    let owner = async { source.next_write().await.reply.send(Ok(())).unwrap() };
    let (outcome, ()) = tokio::join!(hub.write(late, Value::Int32(1)), owner);
    outcome.unwrap();
    drop(source);
    assert_eq!(hub.read(late).quality.status, Status::BAD_NO_COMMUNICATION);
}

#[tokio::test]
async fn a_tag_of_unknown_type_takes_what_its_owner_takes() {
    let hub = Hub::new(Clock::real());
    let spec = TagSpec::new(TagName::new("plc/any").unwrap(), DataType::Variant).writable();
    let mut tags = hub.register("plc", vec![spec]).unwrap();
    let tag = tags.tags()[0];
    let owner = async {
        let request = tags.next_write().await;
        assert_eq!(request.value, Value::Int16(1));
        request.reply.send(Ok(())).unwrap();
    };
    let (outcome, ()) = tokio::join!(hub.write(tag, Value::Int16(1)), owner);
    outcome.unwrap();
}
