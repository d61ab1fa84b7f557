//! Sparkplug's topics (Sparkplug 3.0, 4.1): `spBv1.0/GROUP/KIND/NODE[/DEVICE]` and `spBv1.0/STATE/HOST`.

use std::fmt;

/// A topic's parts, borrowed from its text or from whoever builds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic<'a> {
    /// Of an edge node or one of its devices; there is a device if, and only if, the kind is one of a device.
    Message { group: &'a str, kind: Kind, node: &'a str, device: Option<&'a str> },
    /// Whether a host application is there.
    State { host: &'a str },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    NBirth,
    NData,
    NDeath,
    NCmd,
    DBirth,
    DData,
    DDeath,
    DCmd,
}

const NAMESPACE: &str = "spBv1.0";
const STATE: &str = "STATE";

impl Kind {
    const ALL: [Kind; 8] =
        [Kind::NBirth, Kind::NData, Kind::NDeath, Kind::NCmd, Kind::DBirth, Kind::DData, Kind::DDeath, Kind::DCmd];

    /// As in a topic.
    pub fn name(self) -> &'static str {
        match self {
            Kind::NBirth => "NBIRTH",
            Kind::NData => "NDATA",
            Kind::NDeath => "NDEATH",
            Kind::NCmd => "NCMD",
            Kind::DBirth => "DBIRTH",
            Kind::DData => "DDATA",
            Kind::DDeath => "DDEATH",
            Kind::DCmd => "DCMD",
        }
    }

    pub fn is_of_device(self) -> bool {
        matches!(self, Kind::DBirth | Kind::DData | Kind::DDeath | Kind::DCmd)
    }
}

impl<'a> Topic<'a> {
    /// `None` if it is none of Sparkplug B's.
    pub fn parse(topic: &'a str) -> Option<Self> {
        let mut levels = topic.strip_prefix(NAMESPACE)?.strip_prefix('/')?.split('/');
        let (first, second) = (levels.next()?, levels.next()?);
        let (node, device) = (levels.next(), levels.next());
        let is_empty = |level: &Option<&str>| level.is_some_and(str::is_empty);
        if first.is_empty() || second.is_empty() || is_empty(&node) || is_empty(&device) || levels.next().is_some() {
            return None;
        }
        match node {
            None => (first == STATE).then_some(Topic::State { host: second }),
            Some(node) => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == second)?;
                let fits = kind.is_of_device() == device.is_some();
                fits.then_some(Topic::Message { group: first, kind, node, device })
            }
        }
    }
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::State { host } => write!(f, "{NAMESPACE}/{STATE}/{host}"),
            Topic::Message { group, kind, node, device } => {
                write!(f, "{NAMESPACE}/{group}/{}/{node}", kind.name())?;
                device.map_or(Ok(()), |device| write!(f, "/{device}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for topic in ["spBv1.0/G 1/NBIRTH/N", "spBv1.0/G/DCMD/N/Ü", "spBv1.0/STATE/scada", "spBv1.0/STATE/NDATA/N"] {
            assert_eq!(Topic::parse(topic).map(|topic| topic.to_string()).as_deref(), Some(topic));
        }
        let parsed = Topic::parse("spBv1.0/G/DDATA/N/D");
        assert_eq!(parsed, Some(Topic::Message { group: "G", kind: Kind::DData, node: "N", device: Some("D") }));
    }

    #[test]
    fn other_topics_are_none() {
        for topic in [
            "",
            "spBv1.0",
            "spBv1.0/",
            "spBv1.0/STATE",
            "spBv1.0/STATE/",
            "spBv1.0/G/scada",
            "STATE/scada",
            "spAv1.0/G/NDATA/N",
            "spBv1.0/G/NDATA",
            "spBv1.0/G/NDATA/",
            "spBv1.0/G/NDATA/N/D",
            "spBv1.0/G/DDATA/N",
            "spBv1.0/G/DDATA/N/",
            "spBv1.0/G/DDATA/N/D/x",
            "spBv1.0//NDATA/N",
            "spBv1.0/G/ndata/N",
            "spBv1.0/G/XDATA/N",
        ] {
            assert_eq!(Topic::parse(topic), None, "{topic}");
        }
    }
}
