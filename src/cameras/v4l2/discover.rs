//! What V4L2 nodes there are, and what they are.

use super::ioctl::{self, Sizes};
use super::{kinds, names, negotiate};
use crate::cameras::device::{CameraError, Identity, PixelFormat};
use serde::Serialize;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A /dev/video* node, as `vedette cameras` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    pub path: PathBuf,
    #[serde(flatten)]
    pub listing: Listing,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Listing {
    Camera {
        /// Stays the same over reboots: from udev's by-id, else by-path, else from the card.
        name: String,
        /// The link that stays the same, where udev made one.
        stable_path: Option<PathBuf>,
        #[serde(flatten)]
        identity: Identity,
        formats: Vec<NodeFormat>,
        /// Why there will be no pictures.
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<Fault>,
    },
    /// A node that is none: metadata, output, encoder.
    Other { what: String },
    /// It could not be asked.
    Unknown { error: String },
}

/// What can be told without opening a stream.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// As the camera's `State`: "needs ISP" or "not supported".
    pub state: &'static str,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct NodeFormat {
    pub fourcc: String,
    pub description: String,
    /// Whether this program can make pictures from it.
    pub usable: bool,
    pub sizes: Vec<NodeSize>,
}

#[derive(Clone, Debug, Serialize)]
pub struct NodeSize {
    /// Pixels; of a span, the greatest.
    pub width: u32,
    pub height: u32,
    /// Frames a second, in the driver's order; of a span, the highest.
    pub rates: Vec<f64>,
    /// The driver offers every size from this one (in steps) up to width x height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<(u32, u32)>,
}

impl NodeFormat {
    /// For people: a line for each size.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.sizes.iter().map(|size| format!("{} {size}", self.fourcc))
    }
}

impl fmt::Display for NodeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((width, height)) = self.from {
            write!(f, "{width}x{height} to ")?;
        }
        write!(f, "{}x{}", self.width, self.height)?;
        let rates: Vec<_> = self.rates.iter().map(f64::to_string).collect();
        if rates.is_empty() { Ok(()) } else { write!(f, " at {} fps", rates.join(", ")) }
    }
}

/// All video nodes, in the order of their numbers.
pub fn list() -> Vec<Node> {
    video_nodes().into_iter().map(|path| Node { listing: describe(&path), path }).collect()
}

/// What tells a node from another one at the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeStamp {
    inode: u64,
    /// Major and minor number.
    device: u64,
}

#[cfg(test)]
impl NodeStamp {
    pub(super) fn new(inode: u64) -> Self {
        Self { inode, device: 0 }
    }
}

/// The video nodes without opening any.
pub(crate) fn nodes() -> Vec<(PathBuf, NodeStamp)> {
    let stamp = |path: PathBuf| {
        let found = path.symlink_metadata().ok()?;
        Some((path, NodeStamp { inode: found.ino(), device: found.rdev() }))
    };
    video_nodes().into_iter().filter_map(stamp).collect()
}

pub(super) fn video_nodes() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| format!("/dev/video{number}").into()).collect()
}

/// The name of the camera that a node is; `None` if it is none.
pub(crate) fn camera_name(path: &Path) -> Result<Option<String>, CameraError> {
    match examine(path) {
        Ok(found) => Ok(Some(names::name(path, &found.identity).0)),
        Err(CameraError::NotACamera { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a camera is and offers.
pub(crate) struct Examined {
    pub identity: Identity,
    pub formats: Vec<NodeFormat>,
    /// Why there will be no pictures from it.
    pub fault: Option<CameraError>,
}

/// Opens a node for a moment.
pub(crate) fn examine(path: &Path) -> Result<Examined, CameraError> {
    let device = path.display().to_string();
    let file = super::open(path).map_err(|failure| super::error(&device, "open", &failure))?;
    let found = ioctl::capability(&file).map_err(|failure| super::not_v4l2(&device, &failure))?;
    let queue = kinds::camera_queue(&found, path).map_err(|what| {
        let found = format!("{what} ({})", found.card);
        CameraError::NotACamera { device: device.clone(), found }
    })?;
    let formats = (0..).map_while(|index| ioctl::format_at(&file, queue, index));
    let formats = formats.map(|(fourcc, description)| NodeFormat {
        fourcc: String::from_utf8_lossy(&fourcc).trim_end().to_owned(),
        description,
        usable: PixelFormat::from_fourcc(fourcc).is_some(),
        sizes: sizes(&file, fourcc),
    });
    let formats = formats.collect();
    let offered = negotiate::offered(&file, queue);
    let fault = negotiate::ladder(&offered).is_empty().then(|| negotiate::nothing_usable(&device, &offered));
    let identity = Identity { driver: found.driver, card: found.card, bus: found.bus };
    Ok(Examined { identity, formats, fault })
}

pub(super) fn describe(path: &Path) -> Listing {
    match examine(path) {
        Ok(Examined { identity, formats, fault }) => {
            let (name, stable_path) = names::name(path, &identity);
            let fault = fault.map(|error| Fault { state: error.state(), reason: error.to_string() });
            Listing::Camera { name, stable_path, identity, formats, fault }
        }
        Err(CameraError::NotACamera { found, .. }) => Listing::Other { what: found },
        Err(error) => Listing::Unknown { error: error.to_string() },
    }
}

fn sizes(file: &std::fs::File, fourcc: [u8; 4]) -> Vec<NodeSize> {
    let spans = (0..).map_while(|index| ioctl::size_at(file, fourcc, index));
    let node_size = |span| {
        let ((width, height), from) = match span {
            Sizes::One(size) => (size, None),
            Sizes::Span { min, max, step } if min == max || step == (0, 0) => (max, None),
            Sizes::Span { min, max, .. } => (max, Some(min)),
        };
        let intervals = (0..).map_while(|index| ioctl::interval_at(file, fourcc, (width, height), index));
        let rates = intervals.filter(|interval| !interval.is_zero());
        let rates = rates.map(|interval| (100.0 / interval.as_secs_f64()).round() / 100.0).collect();
        NodeSize { width, height, rates, from }
    };
    spans.map(node_size).collect()
}
