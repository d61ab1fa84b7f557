//! Disks, and how they are as far as the kernel tells.
//!
//! eMMC says in tenths how much of its life is used, for each of its two kinds of memory, and how much of its reserve
//! (JESD84-B51, 7.4.45 to 7.4.47; mmc-dev-attrs in the kernel's documentation). SD cards say nothing. Of SCSI and SATA disks
//! the kernel counts errors, of NVMe it has the controller's state. SMART would need ioctls, and so `unsafe`.

use super::found::{Found, spec};
use super::read::{Reading, number, odd, text};
use crate::model::{DataType, TagSpec, Value};
use std::fs;
use std::path::Path;

const MOST: usize = 16;
/// A sector of /sys/block, whatever the disk's own are.
const SECTOR: u64 = 512;
/// PRE_EOL_INFO: blocks of the reserve that are used: less than 80 %, 80 %, 90 %.
const RESERVE: [&str; 4] = ["unknown", "normal", "warning", "urgent"];

type Tag = (&'static str, DataType, &'static str, &'static str);

pub(super) fn look(sys: &Path) -> Vec<Found> {
    let entries = fs::read_dir(sys.join("block")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // Loops, memory and maps have no device; the boot partitions of an eMMC have that of the eMMC.
    names.retain(|name| sys.join("block").join(name).join("device").exists() && !name.contains("boot"));
    names.sort();
    names.iter().take(MOST).flat_map(|name| disk(sys, name)).collect()
}

fn disk(sys: &Path, name: &str) -> Vec<Found> {
    let folder = sys.join("block").join(name);
    let device = folder.join("device");
    let path = format!("storage/{name}");
    let mut found = Vec::new();
    let mut add = |tag: Tag, reading: Reading, refine: fn(TagSpec) -> TagSpec| {
        found.extend(spec(&path, tag).map(|spec| Found { spec: refine(spec), reading }));
    };
    let size = number(&folder.join("size")).map(|sectors| Value::UInt64(sectors.saturating_mul(SECTOR)));
    add(("size", DataType::UInt64, "B", "Size of the disk"), size, |spec| spec);
    let read_only = number(&folder.join("ro")).map(|ro| Value::Boolean(ro != 0));
    add(("read_only", DataType::Boolean, "", "It cannot be written"), read_only, |spec| spec);
    if device.join("life_time").exists() {
        let tag = ("life_used", DataType::Double, "%", "Share of its life that is used, at most");
        add(tag, life_used(&device.join("life_time")), |spec| spec.range(0.0, 100.0));
    }
    if device.join("pre_eol_info").exists() {
        let tag = ("reserve", DataType::UInt32, "", "State of the blocks that replace worn ones");
        add(tag, reserve(&device.join("pre_eol_info")), |spec| spec.states(RESERVE.map(Into::into).to_vec()));
    }
    if device.join("ioerr_cnt").exists() {
        let errors = hex(&device.join("ioerr_cnt")).map(Value::UInt64);
        add(("io_errors", DataType::UInt64, "", "Requests that failed"), errors, |spec| spec);
    }
    if name.starts_with("nvme") && device.join("state").exists() {
        let state = text(&device.join("state")).map(|state| Value::string(state.trim()));
        add(("state", DataType::String, "", "Of its controller: live when it works"), state, |spec| spec);
    }
    found
}

/// "0x02 0x01": tenths, counted from 1; 11 is more than all, 0 is unknown. The worse of both.
fn life_used(path: &Path) -> Reading {
    let text = text(path)?;
    let tenths: Option<Vec<u32>> = text.split_whitespace().map(parse_hex).collect();
    match tenths.as_deref().and_then(|tenths| tenths.iter().copied().max()) {
        Some(worst @ 1..=11) => Ok(Value::Double(f64::from(worst.min(10) * 10))),
        _ => Err(odd(path)),
    }
}

fn reserve(path: &Path) -> Reading {
    match text(path).map(|text| parse_hex(text.trim()))? {
        Some(state) if (state as usize) < RESERVE.len() => Ok(Value::UInt32(state)),
        _ => Err(odd(path)),
    }
}

fn hex(path: &Path) -> Result<u64, crate::model::Quality> {
    u64::from_str_radix(text(path)?.trim().trim_start_matches("0x"), 16).map_err(|_| odd(path))
}

fn parse_hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::recorded;
    use super::*;

    #[test]
    fn an_emmc_a_disk_and_an_nvme_are_understood() {
        let (_folder, root) = recorded(&[
            ("sys/block/loop0/size", "8\n"),
            ("sys/block/mmcblk0/size", "15269888\n"),
            ("sys/block/mmcblk0/ro", "0\n"),
            ("sys/block/mmcblk0/device/life_time", "0x02 0x03\n"),
            ("sys/block/mmcblk0/device/pre_eol_info", "0x01\n"),
            ("sys/block/mmcblk0boot0/device/life_time", "0x02 0x03\n"),
            ("sys/block/nvme0n1/size", "2\n"),
            ("sys/block/nvme0n1/ro", "1\n"),
            ("sys/block/nvme0n1/device/state", "live\n"),
            ("sys/block/sda/size", "4\n"),
            ("sys/block/sda/ro", "0\n"),
            ("sys/block/sda/device/ioerr_cnt", "0x1f\n"),
        ]);
        let found: Vec<(String, Value)> =
            look(&root.sys).into_iter().map(|one| (one.spec.name.to_string(), one.reading.unwrap())).collect();
        let wanted = [
            ("mmcblk0/size", Value::UInt64(15_269_888 * 512)),
            ("mmcblk0/read_only", Value::Boolean(false)),
            ("mmcblk0/life_used", Value::Double(30.0)),
            ("mmcblk0/reserve", Value::UInt32(1)),
            ("nvme0n1/size", Value::UInt64(1024)),
            ("nvme0n1/read_only", Value::Boolean(true)),
            ("nvme0n1/state", Value::string("live")),
            ("sda/size", Value::UInt64(2048)),
            ("sda/read_only", Value::Boolean(false)),
            ("sda/io_errors", Value::UInt64(31)),
        ];
        assert_eq!(found, wanted.map(|(name, value)| (format!("system/storage/{name}"), value)));
    }

    #[test]
    fn a_life_that_is_over_or_unknown_is_told_from_one_that_is_used() {
        let (folder, _) = recorded(&[("over", "0x0b 0x01"), ("unknown", "0x00 0x00"), ("odd", "x")]);
        let path = |name| folder.path().join(name);
        assert_eq!(life_used(&path("over")), Ok(Value::Double(100.0)));
        assert!(life_used(&path("unknown")).is_err() && life_used(&path("odd")).is_err());
        assert!(reserve(&path("over")).is_err() && reserve(&path("odd")).is_err());
    }
}
