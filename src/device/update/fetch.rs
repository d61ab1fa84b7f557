//! A bundle comes to where RAUC can read it: a URL and a stick's file as a copy on the data partition, a file as it is.
//!
//! A download blocks, so a thread of its own has it; whoever waits here looks how far it is, and tells it when he does not wait
//! any more.

use super::download::{self, Download};
use super::{BUNDLE, Pending, UpdateError, Updates, stick};
use crate::device::give;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often it is said how far a download is.
const TELL: Duration = Duration::from_secs(5);

impl Updates {
    pub(super) async fn fetch(
        &self,
        pending: &mut Pending,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<PathBuf, UpdateError> {
        let path = self.folder.join(BUNDLE);
        let wanted = &mut pending.wanted;
        // Once it is copied it is a file like any other.
        if wanted.is_on_stick && Path::new(&wanted.bundle) != path {
            let (from, to) = (PathBuf::from(&wanted.bundle), path.clone());
            let copied = tokio::task::spawn_blocking(move || stick::copy(&from, &to)).await;
            copied.map_err(|error| UpdateError::Stick(io::Error::other(error)))??;
            give(&path, &fs::metadata(&self.data_dir).map_err(UpdateError::Stick)?).map_err(UpdateError::Stick)?;
            wanted.bundle = path.display().to_string();
            return Ok(path);
        }
        if !wanted.is_url()? {
            let path = PathBuf::from(&wanted.bundle);
            let read = |source| UpdateError::Read { path: path.clone(), source };
            let found = tokio::task::spawn_blocking({
                let path = path.clone();
                move || download::sum(&path)
            });
            let found = found.await.map_err(|error| read(io::Error::other(error)))?.map_err(read)?;
            return match &wanted.sha256 {
                Some(sum) if !found.eq_ignore_ascii_case(sum) => {
                    Err(UpdateError::Sum { path, found, wanted: sum.clone() })
                }
                _ => Ok(path),
            };
        }
        // What is there is another one's, or, without a sum, perhaps the beginning of another file: nothing would say so before RAUC does.
        if pending.attempts <= 1 || pending.wanted.sha256.is_none() {
            self.remove(BUNDLE)?;
        }
        let wanted = &pending.wanted;
        // Whether nobody waits any more; how much there is, and of how much.
        let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0)));
        // More than that at one moment nobody reads, so it is dropped.
        let (cut, mut cuts) = mpsc::channel(4);
        let (wait, wanted, target, told) = (self.wait, wanted.clone(), path.clone(), shared.clone());
        let mut thread = tokio::task::spawn_blocking(move || {
            let download = Download {
                url: &wanted.bundle,
                path: &target,
                sha256: wanted.sha256.as_deref(),
                ca_file: wanted.ca_file.as_deref(),
                tell: &|got, total| {
                    told.1.store(got, Ordering::Relaxed);
                    told.2.store(total.unwrap_or(0), Ordering::Relaxed);
                },
                say: &|what| drop(cut.try_send(what)),
                is_stopped: &|| told.0.load(Ordering::Relaxed),
                wait,
                free: &download::free,
            };
            download.run()
        });
        let _end = SetOnDrop(shared.clone());
        let (mut looks, mut last) = (tokio::time::interval(Duration::from_millis(200)), tokio::time::Instant::now());
        loop {
            tokio::select! {
                ended = &mut thread => {
                    ended.map_err(|error| UpdateError::Read { path: path.clone(), source: io::Error::other(error) })??;
                    return Ok(path);
                }
                Some(what) = cuts.recv() => tell(what),
                _ = looks.tick() => {
                    let (got, total) = (shared.1.load(Ordering::Relaxed), shared.2.load(Ordering::Relaxed));
                    if got > 0 && last.elapsed() >= TELL {
                        last = tokio::time::Instant::now();
                        tell(how_far(got, total));
                    }
                }
            }
        }
    }
}

/// Tells the thread of a download that nobody waits for it any more.
struct SetOnDrop(Arc<(AtomicBool, AtomicU64, AtomicU64)>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

fn how_far(got: u64, total: u64) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match total {
        0 => format!("downloading: {} MiB", mib(got)),
        total => format!("downloading: {} % of {} MiB", got.saturating_mul(100) / total.max(1), mib(total)),
    }
}
