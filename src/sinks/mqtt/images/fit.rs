//! Pictures that are made to fit a limit: smaller in size as far as the limit is far away, then lower in quality, then
//! smaller again until they fit. One that fits already stays as it is and costs nothing.

use crate::hub::frames::{Camera, Shape, Shot};
use crate::model::{Picture, Quality, Status};

/// From here the quality is lowered.
const QUALITY: u8 = 80;
/// Lower quality alone makes a picture smaller by this factor and leaves it one to look at.
const BY_QUALITY: f64 = 2.0;
/// Pixels. What is narrower shows nothing.
const NARROWEST: u32 = 16;

/// On another thread, because it takes as long as decoding and encoding take.
pub async fn fit(camera: &Camera, picture: Picture, max_bytes: u64) -> Shot {
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    if picture.jpeg.len() <= limit {
        return Ok(picture);
    }
    let camera = camera.clone();
    match tokio::task::spawn_blocking(move || shrink(&camera, &picture, limit)).await {
        Ok(shot) => shot,
        Err(error) => Err(Quality::new(Status::BAD_INTERNAL_ERROR, error.to_string())),
    }
}

fn shrink(camera: &Camera, picture: &Picture, limit: usize) -> Shot {
    let scale = (BY_QUALITY * limit as f64 / picture.jpeg.len() as f64).sqrt().min(1.0);
    let mut width = ((f64::from(picture.width) * scale) as u32).max(1);
    loop {
        match camera.reshape_within(picture, Shape { width, height: 0, quality: QUALITY }, limit) {
            Err(quality) if quality.status == Status::BAD_RESOURCE_UNAVAILABLE && width > NARROWEST => {
                width = width * 3 / 4
            }
            shot => return shot,
        }
    }
}
