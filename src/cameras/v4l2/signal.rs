//! What comes in at a camera's input, where that is not a sensor: HDMI bridges and analog video.
//!
//! - A bridge is told the timings that its receiver sees (VIDIOC_QUERY_DV_TIMINGS, then S_DV_TIMINGS) before a format
//!   is agreed, because they decide the size. When they change, the driver says so (V4L2_EVENT_SOURCE_CHANGE), the
//!   stream ends and is opened anew.
//! - Without a signal there is an error that says what is missing: cable, signal or sync. The capture thread keeps asking
//!   while somebody wants pictures.
//!
//! Sources look for an EDID before they send anything. It belongs to the board, not to this program: bridges without a
//! memory of their own (TC358743) get it at boot by `v4l2-ctl --set-edid`.

use super::ioctl::{self, Input, Timings};
use super::{Wish, error};
use crate::cameras::device::CameraError;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use v4l::v4l_sys as sys;

/// Selects the wished input, and lets a bridge follow its signal. Whether it has one that can change.
pub(super) fn prepare(device: &str, file: &File, wish: &Wish) -> Result<bool, CameraError> {
    if let Some(index) = wish.input {
        ioctl::set_input(file, index).map_err(|failure| match Errno::from_io_error(&failure) {
            Some(Errno::INVAL) => CameraError::NoInput { device: device.into(), input: index },
            _ => error(device, "select input", &failure),
        })?;
    }
    // Drivers without inputs have nothing to be prepared.
    let Ok(input) = ioctl::input(file) else { return Ok(false) };
    let timings = check_input(device, file, &input)?;
    if let Some(timings) = &timings {
        ioctl::set_timings(file, timings).map_err(|failure| error(device, "set the timings", &failure))?;
    }
    let can_change = ioctl::subscribe(file, sys::V4L2_EVENT_SOURCE_CHANGE, input.index, 0).is_ok();
    Ok(can_change || timings.is_some())
}

/// Whether there is (still) a signal.
pub(super) fn check(device: &str, file: &File) -> Result<(), CameraError> {
    match ioctl::input(file) {
        Ok(input) => check_input(device, file, &input).map(|_| ()),
        Err(_) => Ok(()),
    }
}

/// The timings of the signal, if it has any.
fn check_input(device: &str, file: &File, input: &Input) -> Result<Option<Timings>, CameraError> {
    let device = device.to_owned();
    if input.has_timings {
        let mut timings = Timings::none();
        let outcome = ioctl::query_timings(file, &mut timings);
        // Bit by bit for each connector; not every receiver has the control.
        let has_power = ioctl::number(file, sys::V4L2_CID_DV_RX_POWER_PRESENT).map_or(true, |pins| pins != 0);
        let has_power = has_power && input.status & sys::V4L2_IN_ST_NO_POWER == 0;
        return match outcome {
            Ok(()) => Ok(Some(timings)),
            Err(failure) => fault_of_timings(device, &failure, has_power, &timings).map_or(Ok(None), Err),
        };
    }
    fault_of_status(device, input.status).map_or(Ok(None), Err)
}

/// What a failed query of the timings says (Documentation/userspace-api/media/v4l/vidioc-query-dv-timings.rst).
fn fault_of_timings(device: String, failure: &io::Error, has_power: bool, seen: &Timings) -> Option<CameraError> {
    Some(match Errno::from_io_error(failure)? {
        Errno::NOLINK if !has_power => CameraError::NoCable { device },
        Errno::NOLINK => CameraError::NoSignal { device },
        Errno::NOLCK => CameraError::NoSync { device },
        Errno::RANGE => CameraError::Timings { device, found: seen.to_string() },
        // This driver has no notion of timings after all, or not for this input.
        Errno::NODATA | Errno::NOTTY | Errno::INVAL => return None,
        _ => error(&device, "query the timings", failure),
    })
}

/// What the flags of an analog input say.
fn fault_of_status(device: String, status: u32) -> Option<CameraError> {
    match status {
        _ if status & sys::V4L2_IN_ST_NO_POWER != 0 => Some(CameraError::NoCable { device }),
        _ if status & sys::V4L2_IN_ST_NO_SIGNAL != 0 => Some(CameraError::NoSignal { device }),
        _ if status & (sys::V4L2_IN_ST_NO_SYNC | sys::V4L2_IN_ST_NO_H_LOCK) != 0 => {
            Some(CameraError::NoSync { device })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_can_be_missing_has_its_own_state() {
        let state = |errno: Errno, has_power| {
            let failure = io::Error::from_raw_os_error(errno.raw_os_error());
            fault_of_timings("hdmi".into(), &failure, has_power, &Timings::none()).map(|error| error.state())
        };
        assert_eq!(state(Errno::NOLINK, false), Some("no cable"));
        assert_eq!(state(Errno::NOLINK, true), Some("no signal"));
        assert_eq!(state(Errno::NOLCK, true), Some("no sync"));
        assert_eq!(state(Errno::RANGE, true), Some("not supported"));
        assert_eq!(state(Errno::NOTTY, true), None);
        assert_eq!(state(Errno::IO, true), Some("failed"));

        let state = |status| fault_of_status("analog".into(), status).map(|error| error.state());
        assert_eq!(state(sys::V4L2_IN_ST_NO_SIGNAL | sys::V4L2_IN_ST_NO_H_LOCK), Some("no signal"));
        assert_eq!(state(sys::V4L2_IN_ST_NO_H_LOCK), Some("no sync"));
        assert_eq!(state(sys::V4L2_IN_ST_NO_COLOR | sys::V4L2_IN_ST_HFLIP), None);
    }
}
