//! The ioctls on a camera's controls, as safe functions on an open file; in the manner of ioctl.rs.

#![allow(unsafe_code, reason = "ioctl(2), as in ioctl.rs")]

use super::ioctl::{Plain, Request, call, errno, text};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

/// A control as the driver describes it now. What its limits mean depends on its type.
pub(super) struct ControlInfo {
    pub id: u32,
    /// V4L2_CTRL_TYPE_*.
    pub kind: u32,
    pub name: String,
    pub minimum: i64,
    pub maximum: i64,
    /// V4L2_CTRL_FLAG_*.
    pub flags: u32,
    /// Empty for a single value.
    pub dimensions: Vec<u32>,
}

/// VIDIOC_QUERY_EXT_CTRL: the control with this number.
pub(super) fn control(file: &File, id: u32) -> io::Result<ControlInfo> {
    let mut raw = sys::v4l2_query_ext_ctrl { id, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_QUERY_EXT_CTRL, &mut raw)?;
    let dimensions = raw.dims.iter().take(raw.nr_of_dims as usize).copied().collect();
    Ok(ControlInfo {
        id: raw.id,
        kind: raw.type_,
        name: text(&raw.name.map(|c| c as u8)),
        minimum: raw.minimum,
        maximum: raw.maximum,
        flags: raw.flags,
        dimensions,
    })
}

/// VIDIOC_QUERY_EXT_CTRL: the control with the next higher number, of whatever type; `None` after the last and if the
/// driver has no controls.
pub(super) fn control_after(file: &File, id: u32) -> io::Result<Option<ControlInfo>> {
    let next = id | sys::V4L2_CTRL_FLAG_NEXT_CTRL | sys::V4L2_CTRL_FLAG_NEXT_COMPOUND;
    match control(file, next) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(errno(&error), Some(Errno::INVAL | Errno::NOTTY)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// VIDIOC_QUERYMENU: the name of an entry of a menu, or the number behind it; `None` where the menu has a gap.
pub(super) fn menu_entry(file: &File, id: u32, is_integer: bool, index: u32) -> Option<String> {
    let mut raw = sys::v4l2_querymenu { id, index, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_QUERYMENU, &mut raw).ok()?;
    // SAFETY: numbers, all of whose bits are written: by the kernel or as zeroes.
    let (number, name) = unsafe { (raw.__bindgen_anon_1.value, raw.__bindgen_anon_1.name) };
    Some(if is_integer { number.to_string() } else { text(&name) })
}

/// How the value of a control travels.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Payload {
    Value(i32),
    Value64(i64),
    /// Strings (with their NUL), arrays and structs.
    Bytes(Vec<u8>),
}

/// VIDIOC_G_EXT_CTRLS with one control: fills `payload`, whose kind must be that of the control. Bytes must be as many as
/// the value can have and are cut to those it has.
pub(super) fn get_control(file: &File, id: u32, payload: &mut Payload) -> io::Result<()> {
    ext_control(file, vidioc::VIDIOC_G_EXT_CTRLS, id, payload)
}

/// VIDIOC_S_EXT_CTRLS with one control.
pub(super) fn set_control(file: &File, id: u32, payload: &mut Payload) -> io::Result<()> {
    ext_control(file, vidioc::VIDIOC_S_EXT_CTRLS, id, payload)
}

fn ext_control(file: &File, request: Request, id: u32, payload: &mut Payload) -> io::Result<()> {
    let mut control = sys::v4l2_ext_control { id, ..Plain::zeroed() };
    match payload {
        Payload::Value(value) => control.__bindgen_anon_1.value = *value,
        Payload::Value64(value) => control.__bindgen_anon_1.value64 = *value,
        Payload::Bytes(bytes) => {
            control.size = bytes.len() as u32;
            control.__bindgen_anon_1.string = bytes.as_mut_ptr().cast();
        }
    }
    // `which` stays 0: V4L2_CTRL_WHICH_CUR_VAL, controls of any class.
    let mut raw = sys::v4l2_ext_controls { count: 1, controls: &raw mut control, ..Plain::zeroed() };
    // The kernel writes at most `size` bytes to the address in `control`; all three live until the call returns.
    call(file, request, &mut raw)?;
    match payload {
        // SAFETY: the payload has the kind of the control, and any bits are a number.
        Payload::Value(value) => *value = unsafe { control.__bindgen_anon_1.value },
        // SAFETY: as above.
        Payload::Value64(value) => *value = unsafe { control.__bindgen_anon_1.value64 },
        Payload::Bytes(bytes) => bytes.truncate(control.size as usize),
    }
    Ok(())
}

/// Makes the arrival of events (POLLPRI) something that can be awaited. Needs a tokio runtime.
pub(super) fn await_events(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File is one descriptor for as long as it lives, and nobody can change that while the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
}
