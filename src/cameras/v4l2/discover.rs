//! What V4L2 nodes there are, what they are, and which name stays theirs.

use super::ioctl::{self, Sizes};
use super::{negotiate, nodes};
use crate::cameras::device::{Identity, PixelFormat};
use serde::Serialize;
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
    Other { what: String, card: String },
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

/// All video nodes, in the order of their numbers.
pub fn list() -> Vec<Node> {
    video_nodes().into_iter().map(|path| Node { listing: describe(&path), path }).collect()
}

/// The cameras among them: name, and the path that stays. With those that need an ISP, so that people see why the
/// camera they plugged in has no pictures.
pub fn discover() -> Vec<(String, PathBuf)> {
    let cameras = list().into_iter().filter_map(|node| match node.listing {
        Listing::Camera { fault: Some(Fault { state: "not supported", .. }), .. } => None,
        Listing::Camera { name, stable_path, .. } => Some((name, stable_path.unwrap_or(node.path))),
        _ => None,
    });
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for (name, path) in cameras {
        // Two cameras of one make may have one name; the later gets its node's name behind it.
        let taken = found.iter().any(|(other, _)| *other == name);
        let node = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if taken { format!("{name} {node}") } else { name };
        found.push((name, path));
    }
    found
}

pub(super) fn video_nodes() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| format!("/dev/video{number}").into()).collect()
}

fn describe(path: &Path) -> Listing {
    let file = match super::open(path) {
        Ok(file) => file,
        Err(error) => {
            return Listing::Unknown { error: super::error(&path.display().to_string(), "open", &error).to_string() };
        }
    };
    let found = match ioctl::capability(&file) {
        Ok(found) => found,
        Err(error) => {
            return Listing::Unknown { error: super::not_v4l2(&path.display().to_string(), &error).to_string() };
        }
    };
    let queue = match nodes::camera_queue(&found, path) {
        Ok(queue) => queue,
        Err(what) => return Listing::Other { what: what.into(), card: found.card },
    };
    let formats =
        (0..).map_while(|index| ioctl::format_at(&file, queue, index)).map(|(fourcc, description)| NodeFormat {
            fourcc: String::from_utf8_lossy(&fourcc).trim_end().to_owned(),
            description,
            usable: PixelFormat::from_fourcc(fourcc).is_some(),
            sizes: sizes(&file, fourcc),
        });
    let formats: Vec<_> = formats.collect();
    let offered = negotiate::offered(&file, queue);
    let fault = (negotiate::ladder(&offered).is_empty())
        .then(|| negotiate::nothing_usable(&path.display().to_string(), &offered))
        .map(|error| Fault { state: error.state(), reason: error.to_string() });
    let link = stable_link(path);
    let name = link.as_deref().and_then(name_of_link).unwrap_or_else(|| plain_name(&found.card, path));
    Listing::Camera {
        name,
        stable_path: link,
        identity: Identity { driver: found.driver, card: found.card, bus: found.bus },
        formats,
        fault,
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

/// The link of udev that points to this node and stays the same: by the device's identity, else by its port.
fn stable_link(path: &Path) -> Option<PathBuf> {
    ["/dev/v4l/by-id", "/dev/v4l/by-path"].into_iter().find_map(|folder| {
        let mut links: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
        links.sort();
        links.into_iter().find(|link| std::fs::canonicalize(link).is_ok_and(|target| target == path))
    })
}

/// `usb-046d_HD_Pro_Webcam_C920_1A2B3C-video-index0` becomes `046d HD Pro Webcam C920 1A2B3C`.
fn name_of_link(link: &Path) -> Option<String> {
    let name = link.file_name()?.to_str()?;
    let name = name.strip_prefix("usb-").unwrap_or(name);
    let name = name.strip_suffix("-video-index0").unwrap_or(name);
    clean(name)
}

fn plain_name(card: &str, path: &Path) -> String {
    clean(card).unwrap_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// A name that can be a folder of tags: no `/`, no control characters, single blanks.
fn clean(name: &str) -> Option<String> {
    let allowed = |c: char| if c == '/' || c == '_' || c.is_control() { ' ' } else { c };
    let spaced: String = name.chars().map(allowed).collect();
    let joined = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    (!joined.is_empty()).then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_what_stays() {
        let link = Path::new("/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_1A2B3C-video-index0");
        assert_eq!(name_of_link(link).unwrap(), "046d HD Pro Webcam C920 1A2B3C");
        let link = Path::new("/dev/v4l/by-path/platform-fe801000.csi-video-index0");
        assert_eq!(name_of_link(link).unwrap(), "platform-fe801000.csi");
        assert_eq!(plain_name("A/B: \u{7}Cam\u{0}era", Path::new("/dev/video3")), "A B: Cam era");
        assert_eq!(plain_name("//", Path::new("/dev/video3")), "video3");
    }
}
