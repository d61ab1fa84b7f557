//! How many samples a second the hub carries on one core: through the table, and on to its readers.
//!
//! `cargo bench --bench hub` (or scripts/bench). One element is one sample. Batches of 1000 stand for a source that polls
//! a device, batches of 1 for one that is told each change.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use vedette::base::Clock;
use vedette::hub::{Every, Hub, Latest, Registration};
use vedette::model::{DataType, Sample, TagName, TagSpec, Value};

fn hub_with(tags: usize) -> (Hub, Registration) {
    let hub = Hub::new(Clock::real());
    let specs = (0..tags).map(|index| {
        let name = TagName::new(&format!("bench/{index}")).expect("a good name");
        TagSpec::new(name, DataType::Double)
    });
    let registration = hub.register("bench", specs.collect()).expect("new names");
    (hub, registration)
}

fn batch(hub: &Hub, tags: &Registration, size: usize) -> Vec<Sample> {
    let now = hub.now();
    tags.tags().iter().take(size).map(|&tag| Sample::good(tag, Value::Double(1.5), now)).collect()
}

/// Reads everything that waits, as the sinks do.
fn drain(every: &mut [Every]) {
    for reader in every {
        while let Some(batch) = reader.try_next() {
            black_box(&batch);
        }
    }
}

fn publish(criterion: &mut Criterion) {
    for size in [1, 1000] {
        let mut group = criterion.benchmark_group(format!("publish/batch of {size}"));
        group.throughput(Throughput::Elements(size as u64));
        for (name, latest, every) in
            [("table", 0, 0), ("table, one latest", 1, 0), ("table, two latest, one every", 2, 1)]
        {
            let (hub, tags) = hub_with(1000);
            let _latest: Vec<Latest> = (0..latest).map(|_| hub.latest()).collect();
            let mut every: Vec<Every> = (0..every).map(|_| hub.every(64)).collect();
            group.bench_function(name, |bencher| {
                bencher.iter_batched(
                    || batch(&hub, &tags, size),
                    |samples| {
                        hub.publish(samples);
                        drain(&mut every);
                    },
                    BatchSize::SmallInput,
                );
            });
            assert!(every.iter().all(|reader| reader.lost() == 0), "the bench reads as fast as it writes");
        }
    }
}

criterion_group!(benches, publish);
criterion_main!(benches);
