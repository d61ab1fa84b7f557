//! `[[modbus]]`, as an integrator writes it.
//!
//!     [[modbus]] ─► endpoint, timing, order ─► [[modbus.unit]] ─► its tags, or those of another (`like`)
//!                                          └─► [[modbus.group]]: tags with an interval of their own
//!
//! `check.rs` says what is wrong; `resolve.rs` makes of it what the lines run with, and no longer refuses anything.

use super::layout::{Order, Type};
use super::plan::Area;
use crate::base::duration;
use crate::base::net::HostPort;
use crate::model::Range;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// `[[modbus]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of its tags. Example: "hall2".
    pub name: String,
    /// Where the units are reached by network: "tcp://10.0.0.5:502" (Modbus TCP), "rtu+tcp://10.0.0.5:4001" (RTU frames
    /// through a serial device server). Port 502 if none is written.
    pub url: Option<String>,
    /// Or the serial port of an RTU line. Example: "/dev/ttyUSB0".
    pub device: Option<PathBuf>,
    /// Of the serial port. Default: 19200, as the standard has it.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// "even", "odd" or "none". Default: "even", as the standard has it.
    #[serde(default)]
    pub parity: Parity,
    /// 1 or 2. Default: 1.
    #[serde(default = "default_stop_bits")]
    pub stop_bits: u8,
    /// Time between two readings of the tags that are in no group, "10ms" to "1day". Default: "1s".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// How long a unit may take to answer; on a serial line the bytes' way comes on top. Default: "500ms".
    #[serde(default = "default_timeout", deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How often a question that was not answered is asked again before the unit counts as silent, 10 at most.
    /// Default: 1.
    #[serde(default = "default_retries")]
    pub retries: u8,
    /// Pause before each request. Default: none, on a serial line 3.5 characters.
    #[serde(default, deserialize_with = "duration::deserialize_some")]
    pub request_gap: Option<Duration>,
    /// Registers of one request at most; some devices take fewer. Default: 125.
    #[serde(default = "default_registers")]
    pub max_registers: u16,
    /// The same for coils and discrete inputs. Default: 2000.
    #[serde(default = "default_bits")]
    pub max_bits: u16,
    /// Registers that nobody asked for and that are read nevertheless to save a request. Default: 10.
    #[serde(default = "default_gap")]
    pub max_gap: u16,
    /// Of the bytes of 32-bit numbers: "ABCD", "CDAB", "BADC", "DCBA". Default: "ABCD".
    #[serde(default)]
    pub order: Order,
    #[serde(default)]
    pub group: Vec<Spanned<Group>>,
    #[serde(default)]
    pub unit: Vec<Spanned<Unit>>,
}

/// `[[modbus.group]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
}

/// `[[modbus.unit]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Unit identifier: 1 to 247, by TCP 0 to 255.
    pub id: Option<u8>,
    /// Or several that are alike: "1-100", "1-8,12".
    pub ids: Option<String>,
    /// The folder of its tags within that of the table; {id} stands for the id. Default: "unit{id}".
    #[serde(default = "default_unit_name")]
    pub name: String,
    /// It has the tags of the unit with this name (as written there) and, further, its own.
    pub like: Option<String>,
    /// It is reached elsewhere, with a connection of its own; {id} stands for the id.
    pub url: Option<String>,
    /// The order of all its tags, if not that of the table.
    pub order: Option<Order>,
    /// The group of its tags that name none.
    pub group: Option<String>,
    #[serde(default)]
    pub tag: Vec<Spanned<Tag>>,
}

/// `[[modbus.unit.tag]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    pub name: String,
    /// "coil", "discrete", "input", "holding". Default: "holding".
    pub table: Option<Area>,
    /// The address of the protocol, which counts from 0.
    pub address: Option<u32>,
    /// Or the number that many manuals have, which says the table and counts from 1: 40001 is the first holding register.
    pub register: Option<Register>,
    /// Default: Boolean in coils and discrete inputs or with `bit`, String with `length`, else UInt16.
    #[serde(rename = "type")]
    pub kind: Option<Type>,
    /// Of an array: how many values.
    pub count: Option<u16>,
    /// Of a String: how many bytes; even, if it can be written.
    pub length: Option<u16>,
    pub order: Option<Order>,
    /// One bit of a register, 0 the lowest.
    pub bit: Option<u8>,
    /// The value is raw * scale + offset, a Double.
    pub scale: Option<f64>,
    pub offset: Option<f64>,
    /// Engineering unit. Example: "bar".
    #[serde(default)]
    pub unit: String,
    /// The span of normal values. What is written must be within it.
    pub range: Option<[f64; 2]>,
    /// Names of the values 0, 1, 2... or of false and true.
    #[serde(default)]
    pub states: Vec<String>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub writable: bool,
    pub group: Option<String>,
}

/// `register = 40001`, or as a text where it begins with 0: `register = "00001"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a register number, as in 40001 or \"00001\"")]
pub enum Register {
    Number(u32),
    Text(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    None,
    Odd,
    #[default]
    Even,
}

/// Where a line is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(HostPort),
    RtuTcp(HostPort),
    Serial { device: PathBuf, baud: u32, parity: Parity, stop_bits: u8 },
}

const fn default_baud() -> u32 {
    19_200
}
const fn default_stop_bits() -> u8 {
    1
}
const fn default_interval() -> Duration {
    Duration::from_secs(1)
}
const fn default_timeout() -> Duration {
    Duration::from_millis(500)
}
const fn default_retries() -> u8 {
    1
}
const fn default_registers() -> u16 {
    MOST_REGISTERS
}
const fn default_bits() -> u16 {
    MOST_BITS
}
const fn default_gap() -> u16 {
    10
}
fn default_unit_name() -> String {
    "unit{id}".into()
}

/// Of one request (Modbus Application Protocol V1.1b3, 6.1 and 6.3).
pub const MOST_REGISTERS: u16 = 125;
pub const MOST_BITS: u16 = 2000;

/// A key, what is wrong with it and what would be right.
pub(super) type Found = (&'static str, String);

impl Config {
    pub(super) fn endpoint(&self) -> Option<Result<Endpoint, Found>> {
        match (&self.url, &self.device) {
            (Some(_), Some(_)) => Some(Err(("device", "there is a url as well; take one of them away".into()))),
            (Some(url), None) => Some(parse_url(url).map_err(|what| ("url", what))),
            (None, Some(device)) => {
                let (device, parity) = (device.clone(), self.parity);
                Some(Ok(Endpoint::Serial { device, baud: self.baud, parity, stop_bits: self.stop_bits }))
            }
            (None, None) => None,
        }
    }
}

fn parse_url(url: &str) -> Result<Endpoint, String> {
    let way = "write it as \"tcp://10.0.0.5:502\", or \"rtu+tcp://10.0.0.5:4001\" for RTU frames through a serial device server";
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url:?} is no URL; {way}"))?;
    let place = HostPort::parse(rest.trim_end_matches('/'), 502);
    let place = place.ok_or_else(|| format!("{rest:?} is no address with or without a port; {way}"))?;
    match scheme {
        "tcp" => Ok(Endpoint::Tcp(place)),
        "rtu+tcp" => Ok(Endpoint::RtuTcp(place)),
        other => Err(format!("{other:?} is not known; {way}, and device = \"/dev/ttyUSB0\" for a serial port")),
    }
}

impl Unit {
    pub(super) fn ids(&self) -> Result<Vec<u8>, Found> {
        match (self.id, &self.ids) {
            (Some(id), None) => Ok(vec![id]),
            (None, Some(ids)) => parse_ids(ids).ok_or_else(|| {
                (
                    "ids",
                    format!(
                        "{ids:?} is no list of unit ids (0 to 255), each once; write it as \"1-100\" or \"1-8,12\""
                    ),
                )
            }),
            (Some(_), Some(_)) => Err(("ids", "there is an id as well; take one of them away".into())),
            (None, None) => Err(("id", "is missing; add id = 1, or ids = \"1-100\" for several that are alike".into())),
        }
    }

    pub(super) fn name_of(&self, id: u8) -> String {
        self.name.replace("{id}", &id.to_string())
    }

    /// Its own, if it has one.
    pub(super) fn endpoint(&self, id: u8) -> Option<Result<Endpoint, Found>> {
        let url = self.url.as_ref()?.replace("{id}", &id.to_string());
        Some(parse_url(&url).map_err(|what| ("url", what)))
    }
}

fn parse_ids(text: &str) -> Option<Vec<u8>> {
    let mut ids = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u8, u8) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last {
            return None;
        }
        ids.extend(first..=last);
    }
    let each: BTreeSet<u8> = ids.iter().copied().collect();
    (each.len() == ids.len()).then_some(ids)
}

impl Tag {
    /// The table and the address of the protocol.
    pub(super) fn place(&self) -> Result<(Area, u16), Found> {
        let in_table = |number: u32| u16::try_from(number).map_err(|_| number);
        match (self.address, &self.register) {
            (Some(address), None) => {
                let area = self.table.unwrap_or(Area::Holding);
                let address = in_table(address).map_err(|number| {
                    let what = format!("{number} is out of range; addresses of the protocol go from 0 to 65535");
                    ("address", format!("{what}, and the numbers of manuals are written as register = {number}"))
                })?;
                Ok((area, address))
            }
            (None, Some(register)) => {
                let (area, address) = register.place().map_err(|what| ("register", what))?;
                match self.table {
                    Some(table) if table != area => {
                        let what =
                            format!("the register says \"{}\"; take the table away, or use address", area.name());
                        Err(("table", what))
                    }
                    _ => Ok((area, address)),
                }
            }
            (Some(_), Some(_)) => Err(("register", "there is an address as well; take one of them away".into())),
            (None, None) => Err((
                "address",
                "is missing; add address = 0 (counted from 0) or register = 40001 (as manuals have it)".into(),
            )),
        }
    }

    pub(super) fn kind(&self, area: Area) -> Type {
        self.kind.unwrap_or(match (area.is_bits() || self.bit.is_some(), self.length) {
            (true, _) => Type::Boolean,
            (false, Some(_)) => Type::String,
            (false, None) => Type::UInt16,
        })
    }

    /// Of a tag that was found good.
    pub(super) fn layout(&self, area: Area, order: Order) -> super::layout::Layout {
        let scaling = (self.scale.is_some() || self.offset.is_some())
            .then(|| super::layout::Scaling { scale: self.scale.unwrap_or(1.0), offset: self.offset.unwrap_or(0.0) });
        super::layout::Layout {
            kind: self.kind(area),
            order: self.order.unwrap_or(order),
            bit: self.bit,
            count: self.count,
            text: self.length.unwrap_or(0),
            scaling,
        }
    }

    pub(super) fn span(&self) -> Option<Range> {
        self.range.map(|[low, high]| Range { low, high })
    }
}

impl Register {
    /// Five digits count to 9999 in each table, six to 65536.
    fn place(&self) -> Result<(Area, u16), String> {
        let text = match self {
            Register::Number(number) => number.to_string(),
            Register::Text(text) => text.clone(),
        };
        let way = "write 00001 (coils), 10001 (discrete inputs), 30001 (input registers) or 40001 (holding registers) and on, \
                   with five digits or six; those that begin with 0 in quotes";
        let wrong = || format!("{text:?} is no register number; {way}");
        let is_number = matches!(text.len(), 5 | 6) && text.bytes().all(|byte| byte.is_ascii_digit());
        let (table, rest) = is_number.then(|| text.split_at(1)).ok_or_else(wrong)?;
        let area = match table {
            "0" => Area::Coil,
            "1" => Area::Discrete,
            "3" => Area::Input,
            "4" => Area::Holding,
            _ => return Err(wrong()),
        };
        let number: u32 = rest.parse().map_err(|_| wrong())?;
        let address = number.checked_sub(1).and_then(|address| u16::try_from(address).ok()).ok_or_else(wrong)?;
        Ok((area, address))
    }
}

#[cfg(test)]
mod tests;
