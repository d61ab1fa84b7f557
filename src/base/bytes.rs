//! Sizes as people write them in a configuration: `64MiB`, `1GB`, `500 kB`.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// For `#[serde(deserialize_with = "crate::base::bytes::deserialize")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let way_out = r#"write a text with a whole number and a unit, as in "500kB", "64MiB", "1GiB""#;
    let text = String::deserialize(deserializer).map_err(|_| Error::custom(format!("invalid size: {way_out}")))?;
    parse(&text).ok_or_else(|| Error::custom(format!("invalid size {text:?}: {way_out}")))
}

/// The same from a command line.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        assert_eq!(
            ["64MiB", "1 GB", "500kb", "0B"].map(parse),
            [Some(64 << 20), Some(1_000_000_000), Some(500_000), Some(0)]
        );
        assert_eq!(["64", "MiB", "1.5MiB", "-1B", "99999999TiB", ""].map(parse), [None; 6]);
    }
}
