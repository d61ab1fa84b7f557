//! Pictures to the broker: when they are taken, how they are kept until it has them, and what is said with them.
//!
//!     camera ── lease ──► Taker ── fit ──► Outbox ── next() ──► uplink ──► broker
//!     tag ── edge ────────►┘                 └── files, oldest first ──┘◄── arrived()
//!     command `snapshot` ──► take() ── the answer carries the message itself ──┘
//!
//! In reading order: [`picture`] what is on its way, `fit` how it gets small enough, [`outbox`] where it waits, `taker` by
//! time and by change, `trigger` and `edge` when a tag becomes something, `way` how they go.
//!
//! A picture that somebody asked for by a command does not wait behind others and is not kept: if the line breaks, whoever
//! asked asks again.

mod picture;

mod fit;

mod outbox;

mod edge;
mod taker;
mod trigger;

mod way;

pub(super) use outbox::{Outbox, Queued, State};
pub(super) use picture::{Cause, Snap};
pub(super) use taker::Taker;
pub(super) use way::{Sent, Sizes, Way};

use super::config::Form;
use crate::hub::Hub;
use crate::hub::frames::Camera;
use crate::model::{Quality, Status};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a camera may take for a picture: it may have to be opened first.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a picture that a command asks for without a limit.
const SNAPSHOT_BYTES: u64 = 512 << 10;

/// Where pictures wait.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("mqtt").join("pictures")
}

/// A new picture, for a command.
pub(super) async fn take(hub: &Hub, camera: &str, max_bytes: Option<u64>) -> Result<Snap, Quality> {
    let camera = find(hub, camera).ok_or_else(|| Quality::new(Status::BAD_NODE_ID_UNKNOWN, unknown(hub, camera)))?;
    let picture = camera.snapshot(Duration::ZERO, PATIENCE).await?;
    let picture = fit::fit(&camera, picture, max_bytes.unwrap_or(SNAPSHOT_BYTES)).await?;
    Ok(Snap::new(camera.name(), picture, Cause::Command, Form::Jpeg))
}

fn find(hub: &Hub, name: &str) -> Option<Camera> {
    hub.cameras().into_iter().find(|camera| camera.name() == name)
}

fn unknown(hub: &Hub, name: &str) -> String {
    let cameras = hub.cameras();
    let names: Vec<_> = cameras.iter().map(|camera| format!("{:?}", camera.name())).collect();
    match names[..] {
        [] => format!("no camera has the name {name:?}; there is none at all"),
        _ => format!("no camera has the name {name:?}; there are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
