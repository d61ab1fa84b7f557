//! HistoryRead: what the store has of a tag, or the pictures that were kept of a camera.
//!
//! - `raw.rs` reads samples as they are, by the rules of ranges and bounds; `pictures.rs` the same for pictures.
//! - `aggregates.rs` computes, `processed.rs` brings it the intervals and the samples.
//! - `nodes.rs` says on the nodes what can be read.
//!
//! Reading waits for the disk, so it happens on blocking threads, [`READERS`] at a time for all clients: whoever reads
//! history waits for others who do, and nobody else waits. A response has [`VALUES`] values and [`BYTES`] at most, all its
//! nodes together; behind that comes a continuation point, which is only a place (no snapshot, no open file), so those
//! that nobody takes up cost nothing. The crate keeps as many for each session as its limits say.

mod aggregates;
pub(super) mod nodes;
mod pictures;
mod processed;
mod raw;

use super::address_space::Target;
use crate::hub::Hub;
use crate::model::TagSpec;
use crate::opcua::timestamp;
use crate::store::{self, StoreError};
use ::opcua::server::ContinuationPoint;
use ::opcua::server::node_manager::HistoryNode;
use ::opcua::types::{
    DataValue, DateTime, HistoryData, NodeId, NumericRange, ReadProcessedDetails, ReadRawModifiedDetails, StatusCode,
    TimestampsToReturn, Variant,
};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tracing::warn;

/// Reads at a time.
const READERS: usize = 2;
/// Values in a response. MaxReturnDataValues.
pub(super) const VALUES: usize = 10_000;
/// Of values in a response, about. A single value may be larger.
const BYTES: usize = 2 << 20;

pub(super) struct History {
    kept: store::History,
    readers: Arc<Semaphore>,
}

/// Where the next response goes on.
#[derive(Clone, Debug)]
enum Place {
    Raw(raw::Place),
    Processed(usize),
    /// The time of the last picture that was given.
    Pictures(i64),
}

/// What there is to do for one node.
struct Job {
    what: What,
    place: Option<Place>,
    range: NumericRange,
    timestamps: TimestampsToReturn,
    /// Share of the response.
    values: usize,
    bytes: usize,
}

enum What {
    Tag(Arc<TagSpec>),
    Camera(String),
}

/// What became of it.
struct Found {
    values: Vec<DataValue>,
    next: Option<Place>,
}

impl History {
    pub(super) fn new(kept: store::History) -> Self {
        Self { kept, readers: Arc::new(Semaphore::new(READERS)) }
    }

    pub(super) fn kept(&self) -> &store::History {
        &self.kept
    }

    pub(super) async fn read_raw(
        &self,
        hub: &Hub,
        target: impl Fn(&NodeId) -> Option<Target>,
        details: &ReadRawModifiedDetails,
        nodes: &mut [&mut &mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        check_timestamps(timestamps)?;
        if details.is_read_modified {
            return Err(StatusCode::BadHistoryOperationUnsupported);
        }
        let wish = raw::Wish::new(details)?;
        self.each(
            hub,
            target,
            nodes,
            timestamps,
            |_| Ok(()),
            move |kept, job, ()| match &job.what {
                What::Tag(spec) => raw::read(&kept.store, spec, &wish, job),
                What::Camera(camera) => pictures::read(&kept.pictures, camera, &wish, job),
            },
        )
        .await;
        Ok(())
    }

    pub(super) async fn read_processed(
        &self,
        hub: &Hub,
        target: impl Fn(&NodeId) -> Option<Target>,
        details: &ReadProcessedDetails,
        nodes: &mut [&mut &mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        check_timestamps(timestamps)?;
        let wish = processed::Wish::new(details)?;
        let functions = processed::functions(details, nodes.len())?;
        let function = |index: usize| functions[index].ok_or(StatusCode::BadAggregateNotSupported);
        self.each(hub, target, nodes, timestamps, function, move |kept, job, function| match &job.what {
            What::Tag(spec) => processed::read(&kept.store, spec, function, &wish, job),
            What::Camera(_) => Err(StatusCode::BadAggregateNotSupported),
        })
        .await;
        Ok(())
    }

    /// Reads for one node after the other. `choose` may refuse a node by its index.
    async fn each<T: Send + 'static>(
        &self,
        hub: &Hub,
        target: impl Fn(&NodeId) -> Option<Target>,
        nodes: &mut [&mut &mut HistoryNode],
        timestamps: TimestampsToReturn,
        choose: impl Fn(usize) -> Result<T, StatusCode>,
        read: impl Fn(&store::History, &Job, T) -> Result<Found, StatusCode> + Clone + Send + 'static,
    ) {
        let share = |whole: usize| (whole / nodes.len().max(1)).max(1);
        let (values, bytes) = (share(VALUES), share(BYTES));
        for (index, node) in nodes.iter_mut().enumerate() {
            let what = match target(node.node_id()) {
                Some(Target::Tag(tag)) => Some(What::Tag(hub.spec(tag))),
                Some(Target::Image(camera)) => Some(What::Camera(camera.name().to_owned())),
                _ => None,
            };
            let place = node.continuation_point().map(|point| point.get::<Place>().cloned());
            let (what, chosen) = match (what, choose(index), &place) {
                (None, ..) => {
                    node.set_status(StatusCode::BadHistoryOperationUnsupported);
                    continue;
                }
                (_, Err(status), _) => {
                    node.set_status(status);
                    continue;
                }
                (_, _, Some(None)) => {
                    node.set_status(StatusCode::BadContinuationPointInvalid);
                    continue;
                }
                (Some(what), Ok(chosen), _) => (what, chosen),
            };
            let job =
                Job { what, place: place.flatten(), range: node.index_range().clone(), timestamps, values, bytes };
            match self.blocking(read.clone(), job, chosen).await {
                Ok(Found { values, next }) => {
                    node.set_status(if values.is_empty() { StatusCode::GoodNoData } else { StatusCode::Good });
                    node.set_result(HistoryData { data_values: Some(values) });
                    let next = next.map(|place| ContinuationPoint::new(Box::new(place)));
                    node.set_next_continuation_point(next);
                }
                Err(status) => node.set_status(status),
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl Fn(&store::History, &Job, T) -> Result<Found, StatusCode> + Send + 'static,
        job: Job,
        chosen: T,
    ) -> Result<Found, StatusCode> {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| StatusCode::BadShutdown)?;
        let kept = self.kept.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&kept, &job, chosen)
        });
        reading.await.unwrap_or(Err(StatusCode::BadInternalError))
    }
}

/// OPC 10000-11, 6.5.1: a value of history has at least one time.
fn check_timestamps(timestamps: TimestampsToReturn) -> Result<(), StatusCode> {
    match timestamps {
        TimestampsToReturn::Neither | TimestampsToReturn::Invalid => Err(StatusCode::BadTimestampsToReturnInvalid),
        _ => Ok(()),
    }
}

/// A time that was given, in ticks.
fn given(time: &DateTime) -> Option<i64> {
    (!time.is_null()).then(|| timestamp(time).ticks())
}

impl Job {
    /// The timestamps that were asked for, and the part.
    fn finish(&self, mut value: DataValue) -> DataValue {
        if self.timestamps == TimestampsToReturn::Source {
            value.server_timestamp = None;
        }
        if self.timestamps == TimestampsToReturn::Server {
            value.source_timestamp = None;
        }
        if self.range != NumericRange::None
            && let Some(whole) = value.value.take().filter(|whole| *whole != Variant::Empty)
        {
            match whole.range_of(&self.range) {
                Ok(part) => value.value = Some(part),
                Err(status) => value.status = Some(status),
            }
        }
        value
    }
}

/// To a client it is all the same why the history cannot be read now.
fn unreadable(error: StoreError) -> StatusCode {
    if !matches!(error, StoreError::NotOpen) {
        warn!(%error, "The history could not be read.");
    }
    StatusCode::BadResourceUnavailable
}
