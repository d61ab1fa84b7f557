//! Where a camera's node is now.

use crate::cameras::device::CameraError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Cheap to clone; all clones see the same. A camera of the configuration has a path once and for all, whether there is
/// something or not; one that was found has a path while it is plugged in, and maybe another the next time.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    /// For people, if there is no path.
    name: String,
    path: Mutex<Option<PathBuf>>,
}

impl Place {
    pub fn fixed(path: &Path) -> Self {
        Self(Arc::new(Inner { name: path.display().to_string(), path: Mutex::new(Some(path.into())) }))
    }

    pub fn found(name: &str, path: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner { name: name.into(), path: Mutex::new(path) }))
    }

    fn path(&self) -> Option<PathBuf> {
        self.0.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The path, or the error that there is none.
    pub fn get(&self) -> Result<PathBuf, CameraError> {
        self.path().ok_or_else(|| CameraError::Unplugged { device: self.0.name.clone() })
    }

    pub fn set(&self, path: Option<PathBuf>) {
        *self.0.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }

    /// The path, or what is known instead.
    pub fn name(&self) -> String {
        self.path().map_or_else(|| self.0.name.clone(), |path| path.display().to_string())
    }
}
