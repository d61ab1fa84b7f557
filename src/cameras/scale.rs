//! stub
use crate::hub::frames::{Shape, Shot};
use crate::model::Picture;
pub(super) fn reshape_picture(picture: &Picture, _: Shape) -> Shot {
    Ok(picture.clone())
}
