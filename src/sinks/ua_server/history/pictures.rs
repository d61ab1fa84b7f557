//! The kept pictures of a camera, by the same rules as samples; there are no bounds of them.

use super::raw::Wish;
use super::{Found, Job, Place, unreadable};
use crate::model::Timestamp;
use crate::opcua::date_time;
use crate::store::{Direction, StoreError, pictures::Pictures};
use ::opcua::types::{ByteString, DataValue, StatusCode, Variant};

/// Bytes of pictures in a response; the first one may be larger. Below what clients take for a message by default.
const BYTES: u64 = 2 << 20;

pub(super) fn read(pictures: &Pictures, camera: &str, wish: &Wish, job: &Job) -> Result<Found, StatusCode> {
    if wish.bounds {
        return Err(StatusCode::BadBoundNotSupported);
    }
    let after = match &job.place {
        None => None,
        Some(Place::Pictures(time)) => Some(*time),
        Some(_) => return Err(StatusCode::BadContinuationPointInvalid),
    };
    let failed = |source| unreadable(StoreError::File { path: camera.into(), source });
    let mut kept = pictures.list(camera).map_err(failed)?;
    let is_forward = wish.direction == Direction::Forward;
    if !is_forward {
        kept.reverse();
    }
    // As seen in the direction of reading.
    let ahead = |a: i64, b: i64| if is_forward { a < b } else { a > b };
    kept.retain(|picture| {
        let time = picture.captured.ticks();
        let ends = wish.to.is_none_or(|to| ahead(time, to) || (to == wish.from && time == to));
        !ahead(time, wish.from) && ends && after.is_none_or(|after| ahead(after, time))
    });
    let most = if wish.most == 0 { job.values } else { wish.most.min(job.values) };
    let (mut values, mut bytes, mut last, mut is_done) = (Vec::new(), 0, 0, true);
    for picture in kept {
        bytes += picture.bytes;
        if values.len() >= most || (bytes > BYTES.min(job.bytes as u64) && !values.is_empty()) {
            is_done = wish.to.is_none() && values.len() >= wish.most;
            break;
        }
        last = picture.captured.ticks();
        let loaded = pictures.load(camera, picture.captured).map_err(failed)?;
        values.extend(loaded.map(|jpeg| job.finish(image(jpeg, picture.captured))));
    }
    Ok(Found { values, next: (!is_done).then_some(Place::Pictures(last)) })
}

fn image(jpeg: Vec<u8>, captured: Timestamp) -> DataValue {
    let time = Some(date_time(captured));
    DataValue {
        value: Some(Variant::ByteString(ByteString { value: Some(jpeg) })),
        status: Some(StatusCode::Good),
        source_timestamp: time,
        server_timestamp: time,
        ..DataValue::default()
    }
}
