//! What a topic says: who speaks, and of what (Sparkplug 3.0, 4.1).

/// Longer ids are nobody's: they would only fill memory and screens.
const LONGEST: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Birth,
    Data,
    Death,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// Of an edge node, or of one of its devices.
    Edge { kind: Kind, group: &'a str, node: &'a str, device: Option<&'a str> },
    /// Of a host application.
    State(&'a str),
    /// Commands that hosts send, and what is not of Sparkplug.
    Other,
    /// Looks like Sparkplug and is not.
    Wrong,
}

impl<'a> Topic<'a> {
    pub fn parse(topic: &'a str) -> Self {
        let levels: Vec<&str> = topic.splitn(6, '/').collect();
        let (kind, group, node, device) = match *levels.as_slice() {
            // The second is that of Sparkplug 2.2.
            ["spBv1.0", "STATE", host] | ["STATE", host] if is_id(host) => return Self::State(host),
            ["spBv1.0", _, "NCMD" | "DCMD", ..] => return Self::Other,
            ["spBv1.0", group, kind, node] if kind.starts_with('N') => (kind, group, node, None),
            ["spBv1.0", group, kind, node, device] if kind.starts_with('D') => (kind, group, node, Some(device)),
            ["spBv1.0", ..] => return Self::Wrong,
            _ => return Self::Other,
        };
        let kind = match &kind[1..] {
            "BIRTH" => Kind::Birth,
            "DATA" => Kind::Data,
            "DEATH" => Kind::Death,
            _ => return Self::Wrong,
        };
        match is_id(group) && is_id(node) && device.is_none_or(is_id) {
            true => Self::Edge { kind, group, node, device },
            false => Self::Wrong,
        }
    }
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_the_standard() {
        let edge = |kind, device| Topic::Edge { kind, group: "G", node: "N", device };
        for (topic, meant) in [
            ("spBv1.0/G/NBIRTH/N", edge(Kind::Birth, None)),
            ("spBv1.0/G/NDATA/N", edge(Kind::Data, None)),
            ("spBv1.0/G/NDEATH/N", edge(Kind::Death, None)),
            ("spBv1.0/G/DBIRTH/N/D", edge(Kind::Birth, Some("D"))),
            ("spBv1.0/G/DDATA/N/D", edge(Kind::Data, Some("D"))),
            ("spBv1.0/G/DDEATH/N/D", edge(Kind::Death, Some("D"))),
            ("spBv1.0/STATE/scada", Topic::State("scada")),
            ("STATE/scada", Topic::State("scada")),
            ("spBv1.0/G/NCMD/N", Topic::Other),
            ("spBv1.0/G/DCMD/N/D", Topic::Other),
            ("vedette/G/N/answer/1", Topic::Other),
        ] {
            assert_eq!(Topic::parse(topic), meant, "{topic}");
        }
        for wrong in [
            "spBv1.0",
            "spBv1.0/G/NBIRTH",
            "spBv1.0/G/NBIRTH/N/D",
            "spBv1.0/G/DBIRTH/N",
            "spBv1.0/G/DBIRTH/N/D/E",
            "spBv1.0/G/NBIRTH/",
            "spBv1.0//NBIRTH/N",
            "spBv1.0/G/NÄ/N",
            "spBv1.0/G/N/N",
            &format!("spBv1.0/G/NBIRTH/{}", "x".repeat(300)),
        ] {
            assert_eq!(Topic::parse(wrong), Topic::Wrong, "{wrong}");
        }
    }
}
