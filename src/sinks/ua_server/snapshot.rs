//! The method `Snapshot(Width, Height, Quality, Format) -> Picture` of each camera: a new picture, made to measure.
//!
//! 0 leaves an argument as it is, and so does leaving the last ones out. With one of width and height 0 the aspect ratio
//! stays. Pictures are made smaller, never larger. The only format is "jpeg", which is also what an empty text means.

use super::node_manager::READ_TIMEOUT;
use crate::hub::frames::{Camera, Shape};
use crate::model::{Picture, Quality};
use crate::opcua::status_code;
use crate::store::History;
use ::opcua::nodes::MethodBuilder;
use ::opcua::server::address_space::AddressSpace;
use ::opcua::server::node_manager::MethodCall;
use ::opcua::types::{
    Argument, ByteString, DataTypeId, Identifier, LocalizedText, NodeId, QualifiedName, StatusCode, Variant,
    VariantScalarTypeId,
};
use std::time::Duration;
use tracing::warn;

pub(super) const NAME: &str = "Snapshot";

const INPUTS: [(&str, DataTypeId, &str); 4] = [
    ("Width", DataTypeId::UInt32, "Pixels; 0: as captured, or by the height"),
    ("Height", DataTypeId::UInt32, "Pixels; 0: as captured, or by the width"),
    ("Quality", DataTypeId::UInt32, "Of the JPEG, 1 to 100; 0: as configured"),
    ("Format", DataTypeId::String, "\"jpeg\" or empty"),
];

pub(super) fn add_node(address_space: &mut AddressSpace, id: &NodeId, name: QualifiedName, camera: &NodeId) {
    let argument = |(name, data_type, description): (&str, DataTypeId, &str)| Argument {
        name: name.into(),
        data_type: data_type.into(),
        value_rank: -1,
        array_dimensions: None,
        description: LocalizedText::from(description),
    };
    let arguments = |direction: &str| match &id.identifier {
        Identifier::String(path) => NodeId::new(id.namespace, format!("{path}/{direction}")),
        _ => unreachable!("all our nodes have string ids"),
    };
    let picture = argument(("Picture", DataTypeId::ImageJPG, "A new picture"));
    MethodBuilder::new(id, name, NAME)
        .description("A new picture in the size and quality asked for; 0 leaves as it is")
        .executable(true)
        .user_executable(true)
        .input_args(address_space, &arguments("InputArguments"), &INPUTS.map(argument))
        .output_args(address_space, &arguments("OutputArguments"), &[picture])
        .component_of(camera.clone())
        .insert(address_space);
}

/// The picture is kept if `history` is to have those of this camera.
pub(super) async fn call(camera: &Camera, history: Option<&History>, method: &mut MethodCall) {
    let shape = match shape(method.arguments()) {
        Ok(shape) => shape,
        Err(results) => return method.set_argument_error(results),
    };
    match take(camera, history, shape).await {
        Ok(jpeg) => {
            method.set_outputs(vec![Variant::ByteString(ByteString { value: Some(jpeg) })]);
            method.set_status(StatusCode::Good);
        }
        Err(quality) => method.set_status(status_code(quality.status)),
    }
}

async fn take(camera: &Camera, history: Option<&History>, shape: Shape) -> Result<Vec<u8>, Quality> {
    let picture = camera.snapshot(Duration::ZERO, READ_TIMEOUT).await?;
    if let Some(history) = history.filter(|history| history.cameras.contains(camera.name())) {
        keep(camera, history, picture.clone()).await;
    }
    if shape == Shape::default() {
        return Ok(picture.jpeg.to_vec());
    }
    let camera = camera.clone();
    let reshaped = tokio::task::spawn_blocking(move || camera.reshape(&picture, shape)).await;
    let reshaped =
        reshaped.map_err(|error| Quality::new(crate::model::Status::BAD_INTERNAL_ERROR, error.to_string()))?;
    Ok(reshaped?.jpeg.to_vec())
}

/// As it was captured, whatever is made of it. A disk that does not take it is no fault of the caller's.
async fn keep(camera: &Camera, history: &History, picture: Picture) {
    let (pictures, name) = (history.pictures.clone(), camera.name().to_owned());
    match tokio::task::spawn_blocking(move || pictures.keep(&name, &picture)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(camera = camera.name(), %error, "A picture could not be kept."),
        Err(error) => warn!(camera = camera.name(), %error, "A picture could not be kept."),
    }
}

/// What the arguments ask for, or a status for each of them. Any integer type will do, as far as the number fits.
fn shape(arguments: &[Variant]) -> Result<Shape, Vec<StatusCode>> {
    let mut results = vec![StatusCode::Good; arguments.len()];
    let mut number = |index: usize, most: u32| match arguments.get(index).map(integer) {
        None => 0,
        Some(None) => {
            results[index] = StatusCode::BadTypeMismatch;
            0
        }
        Some(Some(value)) => match u32::try_from(value).ok().filter(|value| *value <= most) {
            Some(value) => value,
            None => {
                results[index] = StatusCode::BadOutOfRange;
                0
            }
        },
    };
    // 65535 is the most that a JPEG can have (ITU-T T.81, B.2.2).
    let (width, height, quality) = (number(0, 65535), number(1, 65535), number(2, 100) as u8);
    match arguments.get(3) {
        None | Some(Variant::Empty) => {}
        Some(Variant::String(format)) if ["", "jpeg"].contains(&format.as_ref().to_ascii_lowercase().as_str()) => {}
        Some(Variant::String(_)) => results[3] = StatusCode::BadOutOfRange,
        Some(_) => results[3] = StatusCode::BadTypeMismatch,
    }
    if results.iter().all(|result| result.is_good()) { Ok(Shape { width, height, quality }) } else { Err(results) }
}

fn integer(argument: &Variant) -> Option<i64> {
    use VariantScalarTypeId as Type;
    match argument {
        Variant::Empty => Some(0),
        Variant::SByte(_)
        | Variant::Byte(_)
        | Variant::Int16(_)
        | Variant::UInt16(_)
        | Variant::Int32(_)
        | Variant::UInt32(_)
        | Variant::Int64(_)
        | Variant::UInt64(_) => match argument.convert(Type::Int64) {
            Variant::Int64(value) => Some(value),
            // An UInt64 beyond: out of any range.
            _ => Some(i64::MAX),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_empty_and_left_out_leave_as_it_is() {
        assert_eq!(shape(&[]), Ok(Shape::default()));
        let all = [Variant::UInt32(0), Variant::Int64(0), Variant::Empty, Variant::String("".into())];
        assert_eq!(shape(&all), Ok(Shape::default()));
        let some = [Variant::UInt32(320), Variant::Byte(0), Variant::Int16(50), Variant::String("JPEG".into())];
        assert_eq!(shape(&some), Ok(Shape { width: 320, height: 0, quality: 50 }));
    }

    #[test]
    fn each_wrong_argument_is_named() {
        use StatusCode as S;
        let wrong = [Variant::Int32(-1), Variant::Double(1.0), Variant::UInt32(101), Variant::String("png".into())];
        assert_eq!(shape(&wrong), Err(vec![S::BadOutOfRange, S::BadTypeMismatch, S::BadOutOfRange, S::BadOutOfRange]));
        let huge = [Variant::UInt64(u64::MAX), Variant::UInt32(65536)];
        assert_eq!(shape(&huge), Err(vec![S::BadOutOfRange, S::BadOutOfRange]));
    }
}
