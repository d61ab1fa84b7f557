//! Hot-plug: the kernel's and udev's announcements that a video device came or went.
//!
//! The kernel multicasts each change of a device on a netlink socket (NETLINK_KOBJECT_UEVENT, group 1) before udev has
//! made links and permissions; udev repeats it when it is done (group 2). Both are listened to: the first so that a loss
//! is known at once and so that it works without udev, the second so that a new camera has its name that stays.
//! What exactly came is not read from the message but looked for (discover.rs): a message can be lost, a look cannot.

use super::ioctl::poll_one;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub struct Uevents(OwnedFd);

const KERNEL: u32 = 1;
const UDEV: u32 = 2;

impl Uevents {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL | UDEV))?;
        Ok(Self(socket))
    }

    /// Waits for news of a video device, `timeout` at most. `true`: something came or went, or may have.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        if poll_one(&self.0, PollFlags::IN, timeout)?.is_empty() { Ok(false) } else { self.drain() }
    }

    /// Reads all that waits: one look answers a burst of messages.
    fn drain(&self) -> io::Result<bool> {
        // The kernel bounds its messages by 2 KiB (UEVENT_BUFFER_SIZE), udev its own by 8.
        let mut message = [0; 8192];
        let mut is_news = false;
        loop {
            match recv(&self.0, &mut message, RecvFlags::empty()) {
                Ok((length, _)) => is_news |= is_video(&message[..length]),
                Err(Errno::AGAIN) => return Ok(is_news),
                Err(Errno::INTR) => {}
                // More came than the socket could hold, and what is not known.
                Err(Errno::NOBUFS) => is_news = true,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Both senders end with properties `KEY=value`, separated by NULs.
fn is_video(message: &[u8]) -> bool {
    message.split(|&byte| byte == 0).any(|property| property == b"SUBSYSTEM=video4linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn video_devices_are_told_from_others() {
        let kernel = b"add@/devices/platform/vivid.0/video4linux/video0\0ACTION=add\0SUBSYSTEM=video4linux\0SEQNUM=9\0";
        let udev = b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28ACTION=remove\0DEVNAME=/dev/video0\0SUBSYSTEM=video4linux\0";
        assert!(is_video(kernel) && is_video(udev));
        assert!(!is_video(b"add@/devices/x\0SUBSYSTEM=net\0NAME=video4linux\0"));
        assert!(!is_video(b""));
    }

    #[test]
    fn silence_is_no_news() {
        let uevents = Uevents::open().unwrap();
        assert!(!uevents.wait(Duration::ZERO).unwrap());
    }
}
