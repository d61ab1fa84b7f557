//! What V4L2 nodes there are, and what they are.

use super::ioctl::{self, Sizes};
use super::names;
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
    },
    /// A node that is none: metadata, output, encoder.
    Other { what: String, card: String },
    /// It could not be asked.
    Unknown { error: String },
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
    created: (i64, i64),
}

/// The video nodes without opening any.
pub(crate) fn nodes() -> Vec<(PathBuf, NodeStamp)> {
    let stamp = |path: PathBuf| {
        let found = path.symlink_metadata().ok()?;
        Some((path, NodeStamp { inode: found.ino(), created: (found.ctime(), found.ctime_nsec()) }))
    };
    video_nodes().into_iter().filter_map(stamp).collect()
}

fn video_nodes() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| format!("/dev/video{number}").into()).collect()
}

/// The name of the camera that a node is; `None` if it is none.
pub(crate) fn camera_name(path: &Path) -> Option<String> {
    match see(path) {
        Ok(Listing::Camera { name, .. }) => Some(name),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "Cannot tell what a video node is.");
            None
        }
    }
}

/// A camera's identity and formats, or why the node is none or not one of use.
pub(crate) fn examine(path: &Path) -> Result<(Identity, Vec<NodeFormat>), CameraError> {
    let device = path.display().to_string();
    match see(path)? {
        Listing::Camera { identity, formats, .. } if formats.iter().any(|format| format.usable) => {
            Ok((identity, formats))
        }
        Listing::Camera { formats, .. } => {
            let offered: Vec<_> = formats.into_iter().map(|format| format.fourcc).collect();
            let offered = if offered.is_empty() { "no format".into() } else { offered.join(", ") };
            Err(CameraError::NoFormat { device, offered })
        }
        Listing::Other { what, .. } => Err(CameraError::NotACamera { device, found: what }),
        Listing::Unknown { error } => unreachable!("see() returns this as an error: {error}"),
    }
}

fn describe(path: &Path) -> Listing {
    see(path).unwrap_or_else(|error| Listing::Unknown { error: error.to_string() })
}

/// Opens a node for a moment. Never [`Listing::Unknown`].
fn see(path: &Path) -> Result<Listing, CameraError> {
    let device = path.display().to_string();
    let file = super::open(path).map_err(|failure| super::error(&device, "open", &failure))?;
    let found = ioctl::capability(&file).map_err(|failure| super::not_v4l2(&device, &failure))?;
    if !found.is_capture() {
        return Ok(Listing::Other { what: found.kind().into(), card: found.card });
    }
    let formats = (0..).map_while(|index| ioctl::format_at(&file, index)).map(|(fourcc, description)| NodeFormat {
        fourcc: String::from_utf8_lossy(&fourcc).trim_end().to_owned(),
        description,
        usable: PixelFormat::from_fourcc(fourcc).is_some(),
        sizes: sizes(&file, fourcc),
    });
    let formats = formats.collect();
    let identity = Identity { driver: found.driver, card: found.card, bus: found.bus };
    let (name, stable_path) = names::name(path, &identity);
    Ok(Listing::Camera { name, stable_path, identity, formats })
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
