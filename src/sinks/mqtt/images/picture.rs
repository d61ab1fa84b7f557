//! One picture on its way to the broker, and the message that it becomes as a JPEG.
//!
//!     topic             PREFIX/image/CAMERA
//!     payload           the JPEG as it is
//!     content type      image/jpeg
//!     user properties   camera, captured, cause, width, height; with a trigger trigger, index, of
//!
//! MQTT 3.1.1 has neither content type nor properties, so there the camera is known by the topic alone, and when and why
//! not at all.

use crate::model::{Picture, Timestamp};
use crate::mqtt::image_topic;
use crate::mqtt::line::{Message, Properties, QoS};
use crate::sinks::mqtt::config::Form;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Cheap to clone: the bytes are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Snap {
    pub camera: Box<str>,
    pub jpeg: Bytes,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    pub captured: Timestamp,
    pub cause: Cause,
    pub form: Form,
}

/// Why it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    Interval,
    Change,
    Command,
    /// A tag became something; this is picture `index` of `of`, from 1.
    Trigger {
        tag: Box<str>,
        index: usize,
        of: usize,
    },
}

impl Cause {
    fn word(&self) -> &'static str {
        match self {
            Cause::Interval => "interval",
            Cause::Change => "change",
            Cause::Command => "command",
            Cause::Trigger { .. } => "trigger",
        }
    }
}

impl Snap {
    pub fn new(camera: &str, picture: Picture, cause: Cause, form: Form) -> Self {
        let Picture { jpeg, width, height, captured, .. } = picture;
        Self { camera: camera.into(), jpeg, width, height, captured, cause, form }
    }

    /// As a JPEG, below `prefix` (`vedette/GROUP/NODE`).
    pub fn message(&self, prefix: &str) -> Message {
        let mut user = vec![
            ("camera", self.camera.to_string()),
            ("captured", self.captured.to_string()),
            ("cause", self.cause.word().to_owned()),
            ("width", self.width.to_string()),
            ("height", self.height.to_string()),
        ];
        if let Cause::Trigger { tag, index, of } = &self.cause {
            user.extend([("trigger", tag.to_string()), ("index", index.to_string()), ("of", of.to_string())]);
        }
        Message {
            topic: image_topic(prefix, &self.camera),
            payload: self.jpeg.clone(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties {
                content_type: Some("image/jpeg".into()),
                user: user.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                ..Properties::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_it_is() {
        let picture = Picture {
            jpeg: Bytes::from_static(b"jpeg"),
            width: 640,
            height: 480,
            sequence: 7,
            captured: Timestamp::from_millis(1_795_232_569_123),
        };
        let cause = Cause::Trigger { tag: "plc/LineStop".into(), index: 2, of: 5 };
        let message = Snap::new("line 1", picture.clone(), cause, Form::Jpeg).message("vedette/Plant/press");
        assert_eq!((message.topic.as_str(), message.qos), ("vedette/Plant/press/image/line 1", QoS::AtLeastOnce));
        assert_eq!((&message.payload[..], message.retain), (&b"jpeg"[..], false));
        assert_eq!(message.properties.content_type.as_deref(), Some("image/jpeg"));
        let said: Vec<_> = message.properties.user.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let wanted = [
            "camera=line 1",
            "captured=2026-11-21T03:42:49.123Z",
            "cause=trigger",
            "width=640",
            "height=480",
            "trigger=plc/LineStop",
            "index=2",
            "of=5",
        ];
        assert_eq!(said, wanted);
        let message = Snap::new("line 1", picture, Cause::Change, Form::Jpeg).message("p");
        assert_eq!((message.properties.user.len(), message.properties.user[2].1.as_str()), (5, "change"));
    }
}
