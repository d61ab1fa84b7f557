//! One channel of a sensor: what it measures, and its value now.
//!
//! hwmon gives thousandths (Documentation/hwmon/sysfs-interface), power and energy in millionths. iio gives a value that is
//! ready (`in_..._input`), or a raw one to which first an offset is added and which is then multiplied with a scale
//! (Documentation/ABI/testing/sysfs-bus-iio); several channels may share the scale.

use crate::model::{Quality, Status};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A quantity: how its files begin, its unit, by what the kernel's number is divided, and what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measure {
    pub(super) prefix: &'static str,
    pub(super) unit: &'static str,
    pub(super) divisor: f64,
    pub(super) what: &'static str,
}

const fn measure(prefix: &'static str, unit: &'static str, divisor: f64, what: &'static str) -> Measure {
    Measure { prefix, unit, divisor, what }
}

pub(super) const HWMON: &[Measure] = &[
    measure("temp", "°C", 1e3, "Temperature"),
    measure("in", "V", 1e3, "Voltage"),
    measure("fan", "r/min", 1.0, "Speed of a fan"),
    measure("curr", "A", 1e3, "Current"),
    measure("power", "W", 1e6, "Power"),
    measure("energy", "J", 1e6, "Energy"),
    measure("humidity", "%", 1e3, "Relative humidity"),
    measure("freq", "Hz", 1.0, "Frequency"),
];

pub(super) const IIO: &[Measure] = &[
    measure("temp", "°C", 1e3, "Temperature"),
    measure("voltage", "V", 1e3, "Voltage"),
    measure("altvoltage", "V", 1e3, "Alternating voltage"),
    measure("current", "A", 1e3, "Current"),
    measure("power", "W", 1e3, "Power"),
    measure("energy", "J", 1.0, "Energy"),
    measure("humidityrelative", "%", 1e3, "Relative humidity"),
    measure("pressure", "kPa", 1.0, "Pressure"),
    measure("illuminance", "lx", 1.0, "Illuminance"),
    measure("accel", "m/s²", 1.0, "Acceleration"),
    measure("gravity", "m/s²", 1.0, "Acceleration by gravity"),
    measure("anglvel", "rad/s", 1.0, "Angular velocity"),
    // Gauss.
    measure("magn", "T", 1e4, "Magnetic flux density"),
    measure("angl", "rad", 1.0, "Angle"),
    measure("incli", "°", 1.0, "Inclination"),
    measure("distance", "m", 1.0, "Distance"),
    measure("velocity", "m/s", 1.0, "Velocity"),
    measure("resistance", "Ω", 1.0, "Resistance"),
    // Nanofarad.
    measure("capacitance", "F", 1e9, "Capacitance"),
    measure("electricalconductivity", "S/m", 1.0, "Electrical conductivity"),
    measure("ph", "pH", 1.0, "Acidity"),
    measure("concentration", "%", 1.0, "Share of a gas"),
    measure("massconcentration", "µg/m³", 1.0, "Concentration of particles"),
];

/// What no driver before us had.
pub(super) const UNKNOWN: Measure = measure("", "", 1.0, "A measurement");

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Channel {
    /// Its label, else how its files begin.
    pub(super) name: String,
    pub(super) measure: Measure,
    file: PathBuf,
    scale: Option<PathBuf>,
    offset: Option<PathBuf>,
    /// Says 1 when the sensor is broken.
    fault: Option<PathBuf>,
}

impl Channel {
    pub(super) fn new(name: String, measure: Measure, file: PathBuf) -> Self {
        Self { name, measure, file, scale: None, offset: None, fault: None }
    }

    pub(super) fn with_fault(mut self, file: PathBuf) -> Self {
        self.fault = Some(file).filter(|file| file.exists());
        self
    }

    /// Of those that exist the first.
    pub(super) fn with_scale(mut self, scales: &[PathBuf], offsets: &[PathBuf]) -> Self {
        let first = |files: &[PathBuf]| files.iter().find(|file| file.exists()).cloned();
        (self.scale, self.offset) = (first(scales), first(offsets));
        self
    }

    /// Its value in the measure's unit. Can take as long as the sensor takes.
    pub(super) fn read(&self) -> Result<f64, Quality> {
        if let Some(fault) = &self.fault
            && number(fault)? != 0.0
        {
            let reason = format!("{}: the driver says that the sensor is faulty", fault.display());
            return Err(Quality::new(Status::BAD_SENSOR_FAILURE, reason));
        }
        let offset = self.offset.as_deref().map_or(Ok(0.0), number)?;
        let scale = self.scale.as_deref().map_or(Ok(1.0), number)?;
        Ok((number(&self.file)? + offset) * scale / self.measure.divisor)
    }
}

fn number(path: &Path) -> Result<f64, Quality> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    // Some drivers write a unit behind it.
    let number =
        text.split_whitespace().next().and_then(|word| word.parse().ok()).filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| {
        Quality::new(Status::BAD_SENSOR_FAILURE, format!("{}: {:?} is no number", path.display(), text.trim()))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Quality {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let status = match errno {
        Some(Errno::NOENT | Errno::NODEV) => Status::BAD_NOT_CONNECTED,
        // On a bus: nobody answers.
        Some(Errno::NXIO | Errno::REMOTEIO | Errno::TIMEDOUT) => Status::BAD_NO_COMMUNICATION,
        // It measures, sleeps or is in use.
        Some(Errno::AGAIN | Errno::BUSY | Errno::NODATA) => Status::BAD_RESOURCE_UNAVAILABLE,
        Some(Errno::ACCESS | Errno::PERM) => Status::BAD_NOT_READABLE,
        _ => Status::BAD_SENSOR_FAILURE,
    };
    Quality::new(status, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_says_why() {
        let status = |errno: rustix::io::Errno| unreadable(Path::new("x"), &errno.into()).status;
        use rustix::io::Errno;
        assert_eq!(status(Errno::IO), Status::BAD_SENSOR_FAILURE);
        assert_eq!(status(Errno::AGAIN), Status::BAD_RESOURCE_UNAVAILABLE);
        assert_eq!(status(Errno::REMOTEIO), Status::BAD_NO_COMMUNICATION);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("temp1_input");
        let channel = Channel::new("x".into(), HWMON[0], file.clone());
        assert_eq!(channel.read().unwrap_err().status, Status::BAD_NOT_CONNECTED);
        for text in ["", "hot", "nan", "1e999"] {
            fs::write(&file, text).unwrap();
            let quality = channel.read().unwrap_err();
            assert!(quality.to_string().contains("is no number"), "{text}: {quality}");
        }
        fs::write(&file, "-40125\n").unwrap();
        assert_eq!(channel.read(), Ok(-40.125));
    }
}
