//! Which sensors sysfs shows now. Reads only names, labels and lists, which no driver has to ask its hardware for.

use super::channel::{Channel, HWMON, IIO, Measure, UNKNOWN};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Characters of a name that a driver or a device tree gave.
const LONGEST: usize = 60;
/// Of one device; the largest boards have some dozens.
const MOST_CHANNELS: usize = 256;
const MOST_DEVICES: usize = 256;

/// What stays the same as long as a device is where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// `hwmon` or `iio`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    place: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    pub(super) key: Key,
    /// In the order of which the kernel found it.
    folder: (String, u32, String),
    pub(super) channels: Vec<Channel>,
}

/// All devices with a channel, in the order of their kinds, names and places.
pub(super) fn scan(sysfs: &Path) -> Vec<Device> {
    let hwmon = folders(&sysfs.join("class/hwmon")).into_iter().map(|folder| device("hwmon", &folder, hwmon_channels));
    let iio = folders(&sysfs.join("bus/iio/devices")).into_iter().map(|folder| device("iio", &folder, iio_channels));
    let mut devices: Vec<Device> = hwmon.chain(iio).flatten().take(MOST_DEVICES).collect();
    devices.sort_by(|a, b| (&a.key, &a.folder).cmp(&(&b.key, &b.folder)));
    // Several of one name on one chip.
    let mut seen = HashSet::new();
    for device in &mut devices {
        while !seen.insert(device.key.clone()) {
            device.key.place.push("next");
        }
    }
    devices
}

fn folders(of: &Path) -> Vec<PathBuf> {
    // A kernel without this kind of sensors has no such folder.
    fs::read_dir(of).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn device(kind: &'static str, folder: &Path, channels: fn(&Path, &[String]) -> Vec<Channel>) -> Option<Device> {
    // The name that a device tree gives goes before that of the driver.
    let named = ["label", "name", "device/name"].iter().find_map(|file| word(&folder.join(file)));
    let mut files: Vec<String> =
        fs::read_dir(folder).ok()?.flatten().filter_map(|file| file.file_name().into_string().ok()).collect();
    files.sort_by_key(|file| order(file));
    let mut channels = channels(folder, &files);
    channels.truncate(MOST_CHANNELS);
    tell_apart(&mut channels);
    // `hwmon3` and `iio:device0` count from boot to boot; what they stand on has its place on a bus.
    let place = fs::canonicalize(folder.join("device")).or_else(|_| match kind {
        "iio" => fs::canonicalize(folder).map(|own| own.parent().map_or(own.clone(), Path::to_owned)),
        _ => fs::canonicalize(folder),
    });
    let name = named.unwrap_or_else(|| "unnamed".into());
    let key = Key { kind, name, place: lasting(&place.ok()?) };
    let folder = order(&folder.file_name()?.to_string_lossy());
    (!channels.is_empty()).then_some(Device { key, folder, channels })
}

/// A place without the numbers that the kernel gives anew each time that a device is plugged in: `0003:1B1C:1C0B.0004` of
/// a HID device (drivers/hid/hid-core.c: bus, vendor, product, count), `HID-SENSOR-200041.1.auto` of a part of one
/// (drivers/base/platform.c). What is before them is the port that it is plugged into.
fn lasting(place: &Path) -> PathBuf {
    let part = |part: std::path::Component| -> PathBuf {
        let text = part.as_os_str().to_string_lossy();
        let stem = match text.strip_suffix(".auto").unwrap_or(&text).rsplit_once('.') {
            Some((stem, number)) if text.ends_with(".auto") && number.bytes().all(|c| c.is_ascii_digit()) => stem,
            Some((stem, _)) if is_hid(&text) => stem,
            _ => return part.as_os_str().into(),
        };
        stem.into()
    };
    place.components().map(part).collect()
}

/// Whether it is called `0003:1B1C:1C0B.0004`.
fn is_hid(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let is_shaped = text.bytes().filter(|c| !c.is_ascii_hexdigit()).eq(*b"::.");
    is_shaped && parts.iter().all(|part| part.len() >= 4)
}

/// `temp2` before `temp10`.
fn order(file: &str) -> (String, u32, String) {
    let is_digit = |c: char| c.is_ascii_digit();
    let (head, rest) = file.split_at(file.find(is_digit).unwrap_or(file.len()));
    let (digits, tail) = rest.split_at(rest.find(|c| !is_digit(c)).unwrap_or(rest.len()));
    (head.to_owned(), digits.parse().unwrap_or(0), tail.to_owned())
}

/// The text of a file, fit for a segment of a tag's name.
fn word(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let fit = |c: char| if c == '/' { '-' } else { c };
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(LONGEST).map(fit).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Labels that are given twice get what the file is called besides.
fn tell_apart(channels: &mut [Channel]) {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for channel in channels {
        let seen = count.entry(channel.name.clone()).or_default();
        *seen += 1;
        if *seen > 1 {
            channel.name = format!("{} {seen}", channel.name);
        }
    }
}

/// `temp1_input`, `power1_average`: those that are measurements.
fn hwmon_channels(folder: &Path, files: &[String]) -> Vec<Channel> {
    let channel = |file: &String| {
        let (stem, kind) = file.rsplit_once('_')?;
        let prefix = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let measure = HWMON.iter().find(|measure| measure.prefix == prefix && stem.len() > prefix.len())?;
        // Some power meters have only the average.
        let is_average = kind == "average" && !files.contains(&format!("{stem}_input"));
        let is_value = kind == "input" || is_average;
        is_value.then(|| {
            let name = word(&folder.join(format!("{stem}_label"))).unwrap_or_else(|| stem.to_owned());
            Channel::new(name, *measure, folder.join(file)).with_fault(folder.join(format!("{stem}_fault")))
        })
    };
    files.iter().filter_map(channel).collect()
}

/// `in_temp_input`, `in_voltage0_raw`, `in_accel_x_raw`.
fn iio_channels(folder: &Path, files: &[String]) -> Vec<Channel> {
    let channel = |file: &String| {
        let stem = file.strip_prefix("in_")?;
        let path = folder.join(file);
        let name = |stem: &str| word(&folder.join(format!("in_{stem}_label"))).unwrap_or_else(|| stem.to_owned());
        if let Some(stem) = stem.strip_suffix("_input") {
            return Some(Channel::new(name(stem), iio_measure(stem), path));
        }
        let stem = stem.strip_suffix("_raw")?;
        // The driver does the arithmetic itself.
        if files.contains(&format!("in_{stem}_input")) {
            return None;
        }
        let measure = iio_measure(stem);
        let shared: String = stem.chars().filter(|c| !c.is_ascii_digit()).collect();
        let of = |what: &str| {
            let own = [stem, &shared, measure.prefix].map(|stem| format!("in_{stem}_{what}"));
            own.into_iter()
                .chain([format!("in_{what}"), what.to_owned()])
                .map(|file| folder.join(file))
                .collect::<Vec<_>>()
        };
        Some(Channel::new(name(stem), measure, path).with_scale(&of("scale"), &of("offset")))
    };
    files.iter().filter_map(channel).collect()
}

fn iio_measure(stem: &str) -> Measure {
    let word = stem.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    IIO.iter().find(|measure| measure.prefix == word).copied().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    /// Name, value or reason, unit of each channel.
    fn values(device: &Device) -> Vec<(String, String)> {
        let value = |channel: &Channel| match channel.read() {
            Ok(value) => format!("{value} {}", channel.measure.unit),
            Err(quality) => quality.status.to_string(),
        };
        device.channels.iter().map(|channel| (channel.name.clone(), value(channel))).collect()
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_board_is_understood() {
        let folder = recorded(&[
            ("class/hwmon/hwmon0/name", "nct6775\n"),
            ("class/hwmon/hwmon0/in0_input", "1008\n"),
            ("class/hwmon/hwmon0/in0_label", "Vcore/CPU\n"),
            ("class/hwmon/hwmon0/temp2_input", "-500\n"),
            ("class/hwmon/hwmon0/temp10_input", "48500\n"),
            ("class/hwmon/hwmon0/temp10_label", "SYSTIN\n"),
            ("class/hwmon/hwmon0/temp10_fault", "1\n"),
            ("class/hwmon/hwmon0/temp10_max", "80000\n"),
            ("class/hwmon/hwmon0/fan1_input", "1205\n"),
            ("class/hwmon/hwmon0/pwm1", "128\n"),
            ("class/hwmon/hwmon0/intrusion0_alarm", "0\n"),
            ("class/hwmon/hwmon0/power1_average", "12500000\n"),
            ("class/hwmon/hwmon0/power1_label", "SYSTIN\n"),
            ("class/hwmon/hwmon1/device/name", "empty\n"),
        ]);
        let devices = scan(folder.path());
        assert_eq!(devices.len(), 1, "one without a channel is none");
        assert_eq!((devices[0].key.kind, devices[0].key.name.as_str()), ("hwmon", "nct6775"));
        let wanted = [
            ("fan1", "1205 r/min"),
            ("Vcore-CPU", "1.008 V"),
            ("SYSTIN", "12.5 W"),
            ("temp2", "-0.5 °C"),
            ("SYSTIN 2", "BadSensorFailure"),
        ];
        assert_eq!(values(&devices[0]), pairs(&wanted));
    }

    #[test]
    fn converters_and_environment_are_understood() {
        let folder = recorded(&[
            ("bus/iio/devices/iio:device0/name", "bme280\n"),
            ("bus/iio/devices/iio:device0/in_temp_input", "21370\n"),
            ("bus/iio/devices/iio:device0/in_temp_raw", "1\n"),
            ("bus/iio/devices/iio:device0/in_pressure_input", "101.325\n"),
            ("bus/iio/devices/iio:device0/in_humidityrelative_input", "45250\n"),
            ("bus/iio/devices/iio:device0/in_temp_oversampling_ratio", "2\n"),
            ("bus/iio/devices/iio:device1/name", "ads1115\n"),
            ("bus/iio/devices/iio:device1/in_voltage0_raw", "1000\n"),
            ("bus/iio/devices/iio:device1/in_voltage0_scale", "3\n"),
            ("bus/iio/devices/iio:device1/in_voltage0_offset", "-200\n"),
            ("bus/iio/devices/iio:device1/in_voltage1_raw", "1000\n"),
            ("bus/iio/devices/iio:device1/in_voltage_scale", "0.125000\n"),
            ("bus/iio/devices/iio:device1/in_voltage1_label", "tank\n"),
            ("bus/iio/devices/iio:device1/in_voltage0-voltage1_raw", "-8\n"),
            ("bus/iio/devices/iio:device1/in_voltage-voltage_scale", "0.25\n"),
            ("bus/iio/devices/iio:device1/in_novelty_raw", "7\n"),
            ("bus/iio/devices/trigger0/name", "timer\n"),
        ]);
        let devices = scan(folder.path());
        let names: Vec<&str> = devices.iter().map(|device| device.key.name.as_str()).collect();
        assert_eq!(names, ["ads1115", "bme280"]);
        let wanted = [("novelty", "7 "), ("voltage0-voltage1", "-0.002 V"), ("voltage0", "2.4 V"), ("tank", "0.125 V")];
        assert_eq!(values(&devices[0]), pairs(&wanted));
        let wanted = [("humidityrelative", "45.25 %"), ("pressure", "101.325 kPa"), ("temp", "21.37 °C")];
        assert_eq!(values(&devices[1]), pairs(&wanted));
    }

    #[test]
    fn several_of_one_name_on_one_chip_are_several() {
        let files = [0, 1, 2].map(|number| {
            let folder = format!("bus/iio/devices/iio:device{number}");
            [(format!("{folder}/name"), "adc"), (format!("{folder}/in_voltage0_raw"), "1")]
        });
        let files = files.as_flattened().iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>();
        let devices = scan(recorded(&files).path());
        let keys: HashSet<&Key> = devices.iter().map(|device| &device.key).collect();
        assert_eq!((devices.len(), keys.len()), (3, 3));
    }

    #[test]
    fn a_place_is_that_of_the_port_whatever_the_kernel_counts() {
        let usb = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0";
        let place = |below: &str| lasting(Path::new(&format!("{usb}/{below}")));
        assert_eq!(place("0003:1B1C:1C0B.0004"), place("0003:1B1C:1C0B.000A"));
        assert_ne!(place("0003:1B1C:1C0B.0004"), place("0003:1B1C:1C0C.0004"));
        let part = |hid, count| place(&format!("0003:8086:22D8.{hid}/HID-SENSOR-200041.{count}.auto"));
        assert_eq!(part("0001", 1), part("0007", 12));
        for same in [usb, "/sys/devices/platform/soc/fe804000.i2c/i2c-1/1-0048", "/sys/devices/0000:00:14.0"] {
            assert_eq!(lasting(Path::new(same)), Path::new(same));
        }
    }

    #[test]
    fn nothing_is_found_where_there_is_nothing() {
        assert!(scan(Path::new("/does/not/exist")).is_empty());
    }
}
