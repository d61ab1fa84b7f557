//! Reading procfs, sysfs and statvfs.

use crate::model::{Quality, Status, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel's files are; elsewhere in tests.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub proc: PathBuf,
    pub sys: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

pub(super) type Reading = Result<Value, Quality>;

pub(super) struct Readings {
    root: Root,
    disk: PathBuf,
    /// Busy and all ticks at the last reading.
    last: Option<(u64, u64)>,
}

impl Readings {
    pub(super) fn new(root: Root, disk: PathBuf) -> Self {
        // So that the first reading has something to compare with.
        let last = ticks(&root.proc).ok();
        Self { root, disk, last }
    }

    /// One of each, in the order of the tags.
    pub(super) fn take(&mut self) -> Vec<Reading> {
        let Root { proc, sys } = &self.root;
        let disk = rustix::fs::statvfs(&self.disk).map_err(|error| missing(&self.disk, &error.into()));
        let space = |blocks: fn(&rustix::fs::StatVfs) -> u64| {
            disk.as_ref().map(|disk| Value::UInt64(blocks(disk) * disk.f_frsize)).map_err(Clone::clone)
        };
        let usage = usage(proc, &mut self.last);
        vec![
            temperature(sys),
            usage,
            first_number(&proc.join("loadavg")),
            memory(proc, "MemTotal:"),
            memory(proc, "MemAvailable:"),
            resident(proc),
            space(|disk| disk.f_blocks),
            space(|disk| disk.f_bavail),
            first_number(&proc.join("uptime")),
            is_read_only(&disk),
            slot(proc),
        ]
    }
}

/// The kernel makes a file system read-only when it finds it damaged.
fn is_read_only(disk: &Result<rustix::fs::StatVfs, Quality>) -> Reading {
    let is_read_only = |disk: &rustix::fs::StatVfs| disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    disk.as_ref().map(|disk| Value::Boolean(is_read_only(disk))).map_err(Clone::clone)
}

/// What the boot loader told RAUC (RAUC's manual, "Kernel Command Line").
fn slot(proc: &Path) -> Reading {
    let line = text(&proc.join("cmdline"))?;
    let slot = line.split_whitespace().find_map(|word| word.strip_prefix("rauc.slot="));
    let none = || Quality::new(Status::BAD_NOT_SUPPORTED, "the kernel was started without rauc.slot=");
    slot.map(Value::string).ok_or_else(none)
}

/// Of a file with nothing else in it.
pub(super) fn number(path: &Path) -> Result<u64, Quality> {
    text(path)?.trim().parse().map_err(|_| odd(path))
}

fn missing(path: &Path, error: &std::io::Error) -> Quality {
    Quality::new(Status::BAD_NOT_SUPPORTED, format!("{}: {error}", path.display()))
}

pub(super) fn odd(path: &Path) -> Quality {
    Quality::new(Status::BAD_DEVICE_FAILURE, format!("{}: not understood", path.display()))
}

pub(super) fn text(path: &Path) -> Result<String, Quality> {
    fs::read_to_string(path).map_err(|error| missing(path, &error))
}

/// Of the thermal zones that of the processor, by its type; else the first (Documentation/ABI/testing/sysfs-class-thermal:
/// millidegrees Celsius).
fn temperature(sys: &Path) -> Reading {
    let folder = sys.join("class/thermal");
    let entries = fs::read_dir(&folder).map_err(|error| missing(&folder, &error))?;
    let is_zone =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("thermal_zone"));
    let mut zones: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_zone).collect();
    zones.sort();
    let is_cpu = |zone: &&PathBuf| {
        let kind = fs::read_to_string(zone.join("type")).unwrap_or_default().to_lowercase();
        ["cpu", "soc", "x86_pkg"].iter().any(|word| kind.contains(word))
    };
    let Some(zone) = zones.iter().find(is_cpu).or(zones.first()) else {
        return Err(Quality::new(Status::BAD_NOT_SUPPORTED, "this machine has no thermal zone"));
    };
    let path = zone.join("temp");
    let millidegrees: f64 = text(&path)?.trim().parse().map_err(|_| odd(&path))?;
    Ok(Value::Double(millidegrees / 1000.0))
}

/// Busy and all ticks since boot: the first line of /proc/stat (proc(5): user nice system idle iowait ...).
fn ticks(proc: &Path) -> Result<(u64, u64), Quality> {
    let path = proc.join("stat");
    let text = text(&path)?;
    let fields = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).ok_or_else(|| odd(&path))?;
    let numbers: Vec<u64> = fields.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    let [.., _, _, _, _] = numbers[..] else { return Err(odd(&path)) };
    let all: u64 = numbers.iter().sum();
    let idle = numbers[3] + numbers.get(4).unwrap_or(&0);
    Ok((all - idle, all))
}

fn usage(proc: &Path, last: &mut Option<(u64, u64)>) -> Reading {
    let (busy, all) = ticks(proc)?;
    let before = last.replace((busy, all));
    match before {
        Some((busy_before, all_before)) if all > all_before => {
            let share = busy.saturating_sub(busy_before) as f64 / (all - all_before) as f64;
            Ok(Value::Double((share * 100.0).clamp(0.0, 100.0)))
        }
        _ => Err(Status::BAD_WAITING_FOR_INITIAL_DATA.into()),
    }
}

fn first_number(path: &Path) -> Reading {
    let text = text(path)?;
    let number = text.split_whitespace().next().and_then(|field| field.parse().ok());
    number.map(Value::Double).ok_or_else(|| odd(path))
}

/// A line of /proc/meminfo, which counts in KiB.
fn memory(proc: &Path, name: &str) -> Reading {
    let path = proc.join("meminfo");
    kibibytes(&text(&path)?, name).ok_or_else(|| odd(&path))
}

fn resident(proc: &Path) -> Reading {
    let path = proc.join("self/status");
    kibibytes(&text(&path)?, "VmRSS:").ok_or_else(|| odd(&path))
}

fn kibibytes(text: &str, name: &str) -> Option<Value> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Value::UInt64(kibibytes * 1024))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::sources::system) fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = Root { proc: folder.path().join("proc"), sys: folder.path().join("sys") };
        (folder, root)
    }

    #[test]
    fn a_raspberry_pi_is_understood() {
        let (_folder, root) = recorded(&[
            ("sys/class/thermal/cooling_device0/type", "gpio-fan\n"),
            ("sys/class/thermal/thermal_zone0/type", "gpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "40000\n"),
            ("sys/class/thermal/thermal_zone1/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51540\n"),
            ("proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n"),
            ("proc/loadavg", "0.42 0.30 0.25 1/123 4567\n"),
            ("proc/meminfo", "MemTotal:         948304 kB\nMemFree: 1 kB\nMemAvailable:     700000 kB\n"),
            ("proc/self/status", "Name:\tvedette\nVmRSS:\t   20480 kB\n"),
            ("proc/uptime", "1234.56 4000.00\n"),
            ("proc/cmdline", "root=/dev/mmcblk0p2 rauc.slot=A quiet\n"),
        ]);
        let mut readings = Readings::new(root.clone(), "/".into());
        fs::write(root.proc.join("stat"), "cpu  125 0 125 800 150 0 0 0 0 0\n").unwrap();
        let values: Vec<Value> = readings.take().into_iter().map(Result::unwrap).collect();
        assert_eq!(
            values[..6],
            [
                Value::Double(51.54),
                Value::Double(25.0),
                Value::Double(0.42),
                Value::UInt64(948_304 * 1024),
                Value::UInt64(700_000 * 1024),
                Value::UInt64(20 << 20),
            ]
        );
        assert_eq!(values[8], Value::Double(1234.56));
        assert_eq!(values[10], Value::string("A"));
    }

    #[test]
    fn what_is_missing_or_odd_is_bad_with_the_path() {
        let (_folder, root) = recorded(&[
            ("proc/stat", "nonsense"),
            ("proc/loadavg", ""),
            ("proc/meminfo", "MemTotal: x kB"),
            ("proc/cmdline", "quiet"),
        ]);
        let readings = Readings::new(root, "/does/not/exist".into()).take();
        for (index, words) in [
            (0, "class/thermal"),
            (1, "stat: not understood"),
            (2, "loadavg"),
            (3, "meminfo"),
            (6, "/does/not/exist"),
            (8, "uptime"),
            (9, "/does/not/exist"),
            (10, "without rauc.slot="),
        ] {
            let quality = readings[index].as_ref().unwrap_err();
            assert!(quality.is_bad() && quality.to_string().contains(words), "{quality}");
        }
    }
}
