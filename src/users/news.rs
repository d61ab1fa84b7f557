//! News of a folder: that something in it has changed. What it was does not matter, because the file is looked at in any case.

pub use imp::News;

#[cfg(target_os = "linux")]
mod imp {
    //! inotify, read as from a pipe: tokio's AsyncFd would need `unsafe`.

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use std::io;
    use std::path::Path;
    use tokio::net::unix::pipe;

    pub struct News(pipe::Receiver);

    impl News {
        pub fn of_folder_of(file: &Path) -> io::Result<Self> {
            let folder = file.parent().unwrap_or(Path::new("."));
            let news = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            inotify::add_watch(&news, folder, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE)?;
            pipe::Receiver::from_owned_fd_unchecked(news).map(Self)
        }

        /// Waits until something has happened in the folder.
        pub async fn hear(&self) {
            if self.0.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut events = [0; 4096];
            while self.0.try_read(&mut events).is_ok_and(|read| read > 0) {}
        }
    }
}

#[cfg(windows)]
mod imp {
    //! None: the file is looked at every few seconds, and before each login.

    use std::io;
    use std::path::Path;

    pub struct News;

    impl News {
        #[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
        pub fn of_folder_of(_file: &Path) -> io::Result<Self> {
            Ok(Self)
        }

        #[allow(clippy::unused_async, reason = "as on Linux")]
        pub async fn hear(&self) {
            std::future::pending().await
        }
    }
}
