//! Which name stays a camera's over reboots and ports.
//!
//!     /dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_1A2B3C-video-index0    make, model, serial: follows the camera to any port
//!     /dev/v4l/by-path/platform-fe801000.csi-video-index0               the port: follows whatever is plugged in there
//!     "vivid platform:vivid-000"                                        without udev: card and bus, so the port again
//!
//! Two cameras of one make without serial numbers, or with the same, have one link by id between them, which points to either of them, as it
//! happened; so neither is named by it, but both by their ports.

use crate::cameras::device::Identity;
use std::fs;
use std::path::{Path, PathBuf};

/// Name, and udev's link that stays.
pub(super) fn name(node: &Path, identity: &Identity) -> (String, Option<PathBuf>) {
    let link = if has_twin(node) { None } else { link_to(node, "/dev/v4l/by-id") };
    let link = link.or_else(|| link_to(node, "/dev/v4l/by-path"));
    let name = link.as_deref().and_then(name_of_link);
    (name.unwrap_or_else(|| plain_name(identity, node, index_of(node).as_deref())), link)
}

/// Whether udev, where there is one, has made the links and permissions of a node.
pub(crate) fn is_settled(node: &Path) -> bool {
    if !Path::new("/run/udev/control").exists() {
        return true;
    }
    let Some(numbers) = attribute(node, "dev") else { return true };
    Path::new("/run/udev/data").join(format!("c{numbers}")).exists()
}

fn link_to(node: &Path, folder: &str) -> Option<PathBuf> {
    let mut links: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    links.sort();
    links.into_iter().find(|link| fs::canonicalize(link).is_ok_and(|target| target == node))
}

/// What the kernel says of a node, in sysfs.
fn class(node: &Path) -> Option<PathBuf> {
    Some(Path::new("/sys/class/video4linux").join(node.file_name()?))
}

fn attribute(node: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(class(node)?.join(name)).ok()?.trim().to_owned())
}

/// Which of its device's nodes it is, if not the first.
fn index_of(node: &Path) -> Option<String> {
    attribute(node, "index").filter(|index| index != "0")
}

/// Whether another USB camera has the same make, model and serial number (or none, or the one that a maker gave to all).
fn has_twin(node: &Path) -> bool {
    let Some((device, identity)) = class(node).and_then(|class| usb_device(&class)) else { return false };
    let Ok(others) = fs::read_dir("/sys/class/video4linux") else { return false };
    let mut others = others.flatten().filter_map(|other| usb_device(&other.path()));
    others.any(|(other, other_identity)| other != device && other_identity == identity)
}

/// The USB device of a video node, and what its by-id link is made of.
fn usb_device(class: &Path) -> Option<(PathBuf, [String; 3])> {
    let interface = fs::canonicalize(class.join("device")).ok()?;
    let device = interface.parent()?.to_owned();
    let read = |name| fs::read_to_string(device.join(name)).ok();
    let identity = [read("idVendor")?, read("idProduct")?, read("serial").unwrap_or_default()];
    Some((device, identity))
}

/// `usb-046d_HD_Pro_Webcam_C920_1A2B3C-video-index0` becomes `046d HD Pro Webcam C920 1A2B3C`.
fn name_of_link(link: &Path) -> Option<String> {
    let name = link.file_name()?.to_str()?;
    let name = name.strip_prefix("usb-").unwrap_or(name);
    let name = name.strip_suffix("-video-index0").unwrap_or(name);
    clean(name)
}

fn plain_name(identity: &Identity, node: &Path, index: Option<&str>) -> String {
    let Identity { card, bus, .. } = identity;
    let index = index.map(|index| format!(" index{index}")).unwrap_or_default();
    clean(&format!("{card} {bus}{index}"))
        .unwrap_or_else(|| node.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// A name that can be a folder of tags: no `/`, no control characters, single blanks.
pub(super) fn clean(name: &str) -> Option<String> {
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
        let plain = |card: &str, bus: &str, index| {
            let identity = Identity { driver: "d".into(), card: card.into(), bus: bus.into() };
            plain_name(&identity, Path::new("/dev/video3"), index)
        };
        assert_eq!(plain("A/B: \u{7}Cam\u{0}era", "usb-1", None), "A B: Cam era usb-1");
        assert_eq!(plain("rp1-cfe", "platform:x", Some("4")), "rp1-cfe platform:x index4");
        assert_eq!(plain("//", "", None), "video3");
    }
}
