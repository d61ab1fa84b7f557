//! A picture as a file: one line of JSON that says what it is, then the JPEG.
//!
//!     {"camera":"line1","captured":17952325691230000,"cause":"interval","form":"jpeg","width":640,...}
//!     <the JPEG, "bytes" of them with the checksum "crc">
//!
//! `captured` is in ticks of 100 ns since 1970, `crc` the CRC-32 of the JPEG. Whatever else stands in a file is an error,
//! never a panic; keys that a later version may add are ignored.

use crate::model::Timestamp;
use crate::sinks::mqtt::config::Form;
use crate::sinks::mqtt::images::{Cause, Snap};
use crate::store::crc32;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of the line at most: two names of 255 bytes with every character escaped, and the rest.
const HEAD: usize = 8192;

#[derive(Serialize, Deserialize)]
struct Head {
    camera: Box<str>,
    captured: i64,
    cause: Cause,
    form: Form,
    width: u32,
    height: u32,
    bytes: usize,
    crc: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("the first line does not end")]
    Endless,
    #[error("the first line says nothing: {0}")]
    Head(#[from] serde_json::Error),
    #[error("the picture has {found} bytes, not {wanted}")]
    Length { found: usize, wanted: usize },
    #[error("the picture has another checksum than its first line says")]
    Checksum,
}

/// The line, with its end; the JPEG follows it.
pub fn head(snap: &Snap) -> Vec<u8> {
    let head = Head {
        camera: snap.camera.clone(),
        captured: snap.captured.ticks(),
        cause: snap.cause.clone(),
        form: snap.form,
        width: snap.width,
        height: snap.height,
        bytes: snap.jpeg.len(),
        crc: crc32(&snap.jpeg),
    };
    let mut line = serde_json::to_vec(&head).expect("texts and numbers can be written as JSON");
    line.push(b'\n');
    line
}

/// Shares the bytes of the file.
pub fn decode(file: Vec<u8>) -> Result<Snap, Damage> {
    let end = file.iter().take(HEAD).position(|byte| *byte == b'\n').ok_or(Damage::Endless)?;
    let Head { camera, captured, cause, form, width, height, bytes, crc } = serde_json::from_slice(&file[..end])?;
    let jpeg = Bytes::from(file).slice(end + 1..);
    if jpeg.len() != bytes {
        return Err(Damage::Length { found: jpeg.len(), wanted: bytes });
    }
    if crc32(&jpeg) != crc {
        return Err(Damage::Checksum);
    }
    Ok(Snap { camera, jpeg, width, height, captured: Timestamp::from_ticks(captured), cause, form })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(snap: &Snap) -> Vec<u8> {
        [&head(snap)[..], &snap.jpeg].concat()
    }

    fn snap() -> impl Strategy<Value = Snap> {
        let trigger = (any::<String>(), any::<usize>(), any::<usize>()).prop_map(|(tag, index, of)| Cause::Trigger {
            tag: tag.into(),
            index,
            of,
        });
        let cause = prop_oneof![Just(Cause::Interval), Just(Cause::Change), Just(Cause::Command), trigger];
        let form = prop_oneof![Just(Form::Jpeg), Just(Form::Sparkplug)];
        let jpeg = proptest::collection::vec(any::<u8>(), 0..40);
        (any::<String>(), jpeg, any::<[u32; 2]>(), any::<i64>(), cause, form).prop_map(
            |(camera, jpeg, [width, height], captured, cause, form)| Snap {
                camera: camera.into(),
                jpeg: jpeg.into(),
                width,
                height,
                captured: Timestamp::from_ticks(captured),
                cause,
                form,
            },
        )
    }

    #[test]
    fn the_format_stays_what_it_is() {
        let snap = Snap {
            camera: "line1".into(),
            jpeg: Bytes::from_static(b"123456789"),
            width: 640,
            height: 480,
            captured: Timestamp::from_millis(1_795_232_569_123),
            cause: Cause::Trigger { tag: "plc/Stop".into(), index: 1, of: 5 },
            form: Form::Sparkplug,
        };
        let wanted = concat!(
            r#"{"camera":"line1","captured":17952325691230000,"#,
            r#""cause":{"trigger":{"tag":"plc/Stop","index":1,"of":5}},"form":"sparkplug","#,
            r#""width":640,"height":480,"bytes":9,"crc":3421780262}"#,
            "\n123456789"
        );
        assert_eq!(String::from_utf8(file(&snap)).unwrap(), wanted);
    }

    #[test]
    fn names_as_long_as_they_can_be_fit_the_line() {
        let long: Box<str> = "\u{1}".repeat(255).into();
        let cause = Cause::Trigger { tag: long.clone(), index: usize::MAX, of: usize::MAX };
        let (captured, jpeg) = (Timestamp::from_ticks(i64::MIN), Bytes::new());
        let snap = Snap { camera: long, jpeg, width: u32::MAX, height: u32::MAX, captured, cause, form: Form::Jpeg };
        assert_eq!(decode(file(&snap)).unwrap(), snap);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(snap in snap()) {
            prop_assume!(head(&snap).len() <= HEAD);
            prop_assert_eq!(decode(file(&snap)).unwrap(), snap);
        }

        #[test]
        fn a_damaged_file_is_an_error_and_never_another_picture(
            snap in snap(), at: prop::sample::Index, byte: u8, cut: bool,
        ) {
            let whole = file(&snap);
            let mut bytes = whole.clone();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= byte;
            }
            // What stands in the line has no checksum, but what it says of the JPEG must hold.
            if let Ok(read) = decode(bytes.clone()) {
                prop_assert_eq!(&read.jpeg, &snap.jpeg);
            }
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), json: String) {
            let _ = decode(bytes.clone());
            let _ = decode([json.as_bytes(), b"\n", &bytes].concat());
        }
    }
}
