//! Engineering units as people write them, and what OPC UA calls them (OPC 10000-8, 5.6.3.3).
//!
//! The codes, names and descriptions are those of the OPC Foundation's table `UNECE_to_OPCUA.csv`; what that leaves out
//! (shares, amounts of data) has the common code of UN/CEFACT Recommendation 20, Annex II. `unitId` is made of the code's
//! characters. A unit that is not here keeps its text and has the `unitId` -1.

use ::opcua::types::{EUInformation, LocalizedText};

const UNECE: &str = "http://www.opcfoundation.org/UA/units/un/cefact";

/// Common code, display name, description, and other ways to write it.
type Unit = (&'static str, &'static str, &'static str, &'static [&'static str]);

const UNITS: &[Unit] = &[
    // Shares and counts.
    ("P1", "%", "percent", &["percent"]),
    ("59", "ppm", "part per million", &[]),
    ("61", "ppb", "part per billion", &[]),
    ("C62", "1", "one", &[]),
    ("Q30", "pH", "pH (potential of Hydrogen)", &[]),
    // Angle.
    ("DD", "°", "degree [unit of angle]", &["deg"]),
    ("C81", "rad", "radian", &[]),
    ("C25", "mrad", "milliradian", &[]),
    ("M44", "rev", "revolution", &[]),
    ("E96", "°/s", "degree per second", &["deg/s"]),
    ("2A", "rad/s", "radian per second", &[]),
    // Length, area, volume.
    ("MTR", "m", "metre", &[]),
    ("DMT", "dm", "decimetre", &[]),
    ("CMT", "cm", "centimetre", &[]),
    ("MMT", "mm", "millimetre", &[]),
    ("4H", "µm", "micrometre (micron)", &["um", "μm"]),
    ("C45", "nm", "nanometre", &[]),
    ("KMT", "km", "kilometre", &[]),
    ("INH", "in", "inch", &["inch"]),
    ("FOT", "ft", "foot", &[]),
    ("MTK", "m²", "square metre", &["m2", "m^2"]),
    ("CMK", "cm²", "square centimetre", &["cm2", "cm^2"]),
    ("MMK", "mm²", "square millimetre", &["mm2", "mm^2"]),
    ("HAR", "ha", "hectare", &[]),
    ("MTQ", "m³", "cubic metre", &["m3", "m^3"]),
    ("CMQ", "cm³", "cubic centimetre", &["cm3", "cm^3"]),
    ("MMQ", "mm³", "cubic millimetre", &["mm3", "mm^3"]),
    ("LTR", "l", "litre", &["L"]),
    ("HLT", "hl", "hectolitre", &["hL"]),
    ("MLT", "ml", "millilitre", &["mL"]),
    ("4G", "µl", "microlitre", &["ul", "μl"]),
    // Time and frequency.
    ("SEC", "s", "second [unit of time]", &["sec"]),
    ("C26", "ms", "millisecond", &[]),
    ("B98", "µs", "microsecond", &["us", "μs"]),
    ("C47", "ns", "nanosecond", &[]),
    ("MIN", "min", "minute [unit of time]", &[]),
    ("HUR", "h", "hour", &[]),
    ("DAY", "d", "day", &[]),
    ("WEE", "wk", "week", &[]),
    ("ANN", "y", "year", &[]),
    ("HTZ", "Hz", "hertz", &[]),
    ("KHZ", "kHz", "kilohertz", &[]),
    ("MHZ", "MHz", "megahertz", &[]),
    ("A86", "GHz", "gigahertz", &[]),
    ("C97", "s⁻¹", "reciprocal second", &["1/s", "/s"]),
    ("C94", "min⁻¹", "reciprocal minute", &["1/min", "/min"]),
    ("H10", "1/h", "reciprocal hour", &["/h"]),
    ("RPM", "r/min", "revolutions per minute", &["rpm", "U/min"]),
    ("RPS", "r/s", "revolutions per second", &["rps"]),
    // Speed and acceleration.
    ("MTS", "m/s", "metre per second", &[]),
    ("2X", "m/min", "metre per minute", &[]),
    ("M60", "m/h", "metre per hour", &[]),
    ("C16", "mm/s", "millimetre per second", &[]),
    ("H81", "mm/min", "millimetre per minute", &[]),
    ("2M", "cm/s", "centimetre per second", &[]),
    ("KMH", "km/h", "kilometre per hour", &[]),
    ("MSK", "m/s²", "metre per second squared", &["m/s2", "m/s^2"]),
    // Mass, density, concentration.
    ("KGM", "kg", "kilogram", &[]),
    ("GRM", "g", "gram", &[]),
    ("MGM", "mg", "milligram", &[]),
    ("MC", "µg", "microgram", &["ug", "μg"]),
    ("TNE", "t", "tonne (metric ton)", &[]),
    ("KMQ", "kg/m³", "kilogram per cubic metre", &["kg/m3", "kg/m^3"]),
    ("A93", "g/m³", "gram per cubic metre", &["g/m3", "g/m^3"]),
    ("GP", "mg/m³", "milligram per cubic metre", &["mg/m3", "mg/m^3"]),
    ("GQ", "µg/m³", "microgram per cubic metre", &["ug/m3", "μg/m³"]),
    ("23", "g/cm³", "gram per cubic centimetre", &["g/cm3", "g/cm^3"]),
    ("GL", "g/l", "gram per litre", &["g/L"]),
    ("M1", "mg/l", "milligram per litre", &["mg/L"]),
    ("C34", "mol", "mole", &[]),
    ("C38", "mol/l", "mole per litre", &["mol/L"]),
    // Flow.
    ("MQS", "m³/s", "cubic metre per second", &["m3/s"]),
    ("G53", "m³/min", "cubic metre per minute", &["m3/min"]),
    ("MQH", "m³/h", "cubic metre per hour", &["m3/h"]),
    ("G51", "l/s", "litre per second", &["L/s"]),
    ("L2", "l/min", "litre per minute", &["L/min"]),
    ("41", "ml/min", "millilitre per minute", &["mL/min"]),
    ("KGS", "kg/s", "kilogram per second", &[]),
    ("F31", "kg/min", "kilogram per minute", &[]),
    ("E93", "kg/h", "kilogram per hour", &[]),
    ("E18", "t/h", "tonne per hour", &[]),
    // Force, torque, pressure, viscosity.
    ("NEW", "N", "newton", &[]),
    ("C20", "mN", "millinewton", &[]),
    ("B47", "kN", "kilonewton", &[]),
    ("B73", "MN", "meganewton", &[]),
    ("NU", "N·m", "newton metre", &["Nm", "N m", "N*m"]),
    ("B48", "kN·m", "kilonewton metre", &["kNm"]),
    ("PAL", "Pa", "pascal", &[]),
    ("A97", "hPa", "hectopascal", &[]),
    ("KPA", "kPa", "kilopascal", &[]),
    ("MPA", "MPa", "megapascal", &[]),
    ("BAR", "bar", "bar [unit of pressure]", &[]),
    ("MBR", "mbar", "millibar", &[]),
    ("PS", "lbf/in²", "pound-force per square inch", &["psi"]),
    ("C56", "N/mm²", "newton per square millimetre", &["N/mm2"]),
    ("C24", "mPa·s", "millipascal second", &["mPas", "mPa*s"]),
    ("C65", "Pa·s", "pascal second", &["Pas", "Pa*s"]),
    // Temperature.
    ("CEL", "°C", "degree Celsius", &["degC", "C°", "℃"]),
    ("FAH", "°F", "degree Fahrenheit", &["degF", "℉"]),
    ("KEL", "K", "kelvin", &[]),
    // Energy and power.
    ("JOU", "J", "joule", &[]),
    ("KJO", "kJ", "kilojoule", &[]),
    ("3B", "MJ", "megajoule", &[]),
    ("WHR", "W·h", "watt hour", &["Wh"]),
    ("KWH", "kW·h", "kilowatt hour", &["kWh"]),
    ("MWH", "MW·h", "megawatt hour (1000 kW.h)", &["MWh"]),
    ("WTT", "W", "watt", &[]),
    ("C31", "mW", "milliwatt", &[]),
    ("KWT", "kW", "kilowatt", &[]),
    ("MAW", "MW", "megawatt", &[]),
    ("D46", "V·A", "volt - ampere", &["VA"]),
    ("KVA", "kV·A", "kilovolt - ampere", &["kVA"]),
    ("D44", "var", "var", &["VAr"]),
    ("KVR", "kvar", "kilovar", &["kVAr"]),
    ("D54", "W/m²", "watt per square metre", &["W/m2"]),
    // Electricity and magnetism.
    ("VLT", "V", "volt", &[]),
    ("2Z", "mV", "millivolt", &[]),
    ("D82", "µV", "microvolt", &["uV", "μV"]),
    ("KVT", "kV", "kilovolt", &[]),
    ("AMP", "A", "ampere", &[]),
    ("4K", "mA", "milliampere", &[]),
    ("B84", "µA", "microampere", &["uA", "μA"]),
    ("B22", "kA", "kiloampere", &[]),
    ("AMH", "A·h", "ampere hour", &["Ah"]),
    ("E09", "mA·h", "milliampere hour", &["mAh"]),
    ("OHM", "Ω", "ohm", &["\u{2126}", "Ohm", "ohm"]),
    ("E45", "mΩ", "milliohm", &["m\u{2126}", "mOhm"]),
    ("B49", "kΩ", "kiloohm", &["k\u{2126}", "kOhm"]),
    ("B75", "MΩ", "megaohm", &["M\u{2126}", "MOhm"]),
    ("FAR", "F", "farad", &[]),
    ("4O", "µF", "microfarad", &["uF", "μF"]),
    ("81", "H", "henry", &[]),
    ("D33", "T", "tesla", &[]),
    ("C29", "mT", "millitesla", &[]),
    ("SIE", "S", "siemens", &[]),
    ("D10", "S/m", "siemens per metre", &[]),
    ("H61", "mS/cm", "millisiemens per centimetre", &[]),
    ("G42", "µS/cm", "microsiemens per centimetre", &["uS/cm", "μS/cm"]),
    // Light, sound, radiation.
    ("LUX", "lx", "lux", &["lux"]),
    ("CDL", "cd", "candela", &[]),
    ("LUM", "lm", "lumen", &[]),
    ("A24", "cd/m²", "candela per square metre", &["cd/m2"]),
    ("2N", "dB", "decibel", &[]),
    ("BQL", "Bq", "becquerel", &[]),
    ("D13", "Sv", "sievert", &[]),
    // Data. "B" is the byte here, not the bel.
    ("AD", "B", "byte", &["byte", "Byte"]),
    ("2P", "kB", "kilobyte", &["kbyte"]),
    ("4L", "MB", "megabyte", &["Mbyte"]),
    ("E34", "GB", "gigabyte", &["Gbyte"]),
    ("E35", "TB", "terabyte", &["Tbyte"]),
    ("E64", "KiB", "kibibyte", &["Kibyte"]),
    ("E63", "MiB", "mebibyte", &["Mibyte"]),
    ("E62", "GiB", "gibibyte", &["Gibyte"]),
    ("E61", "TiB", "tebibyte", &["Tibyte"]),
    ("A99", "bit", "bit", &[]),
    ("B10", "bit/s", "bit per second", &["bps"]),
    ("C74", "kbit/s", "kilobit per second", &["kbps"]),
    ("E20", "Mbit/s", "megabit per second", &["Mbps"]),
    ("B80", "Gbit/s", "gigabit per second", &["Gbps"]),
    ("P93", "B/s", "byte per second", &["byte/s"]),
    ("P94", "kB/s", "kilobyte per second", &[]),
    ("P95", "MB/s", "megabyte per second", &[]),
];

/// What goes into the property EngineeringUnits.
pub fn information(text: &str) -> EUInformation {
    let known = UNITS.iter().find(|(_, name, _, others)| *name == text || others.contains(&text));
    let (id, description) = match known {
        Some((code, _, description, _)) => (unit_id(code), LocalizedText::new("en", description)),
        None => (-1, LocalizedText::null()),
    };
    // Shown as the configuration has it: "rpm" is what the operator expects to read.
    EUInformation { namespace_uri: UNECE.into(), unit_id: id, display_name: LocalizedText::from(text), description }
}

/// The characters of the code as one number, the first one highest (OPC 10000-8, 5.6.3.3).
fn unit_id(code: &str) -> i32 {
    code.bytes().fold(0, |id, byte| id << 8 | i32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_those_of_the_official_table() {
        for (text, id) in [
            ("°C", 4408652),
            ("K", 4932940),
            ("°F", 4604232),
            ("bar", 4342098),
            ("mbar", 5063250),
            ("m", 5067858),
            ("mm", 5066068),
            ("µm", 13384),
            ("s", 5457219),
            ("ms", 4403766),
            ("min", 5065038),
            ("h", 4740434),
            ("Hz", 4740186),
            ("1/s", 4405559),
            ("1/min", 4405556),
            ("rpm", 5394509),
            ("V", 5655636),
            ("mA", 13387),
            ("kW", 4937556),
            ("kWh", 4937544),
            ("Ω", 5195853),
            ("Nm", 20053),
            ("kg", 4933453),
            ("l/min", 19506),
            ("m³/h", 5067080),
            ("m/s", 5067859),
            ("°", 17476),
            ("lx", 5002584),
            ("dB", 12878),
            ("pH", 5321520),
            ("S/m", 4469040),
            ("%", 20529),
            ("B", 16708),
        ] {
            assert_eq!(information(text).unit_id, id, "{text}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_keeps_its_text() {
        let parts = information("parts/shift");
        assert_eq!((parts.unit_id, parts.display_name.text.as_ref()), (-1, "parts/shift"));
        assert_eq!(parts.description, LocalizedText::null());
    }

    #[test]
    fn no_code_and_no_text_stands_for_two_units() {
        let (mut codes, mut texts) = (HashSet::new(), HashSet::new());
        for (code, name, _, others) in UNITS {
            assert!(codes.insert(code), "{code}");
            for text in std::iter::once(name).chain(others.iter()) {
                assert!(texts.insert(text), "{text}");
            }
        }
    }
}
