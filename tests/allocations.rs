//! A camera runs for years: what is done for each frame allocates nothing but the JPEG that is handed out.
//!
//! Counts what Rust allocates. libjpeg has pools of its own, which it frees with each frame.

#![allow(unsafe_code, clippy::unwrap_used, reason = "a test, and an allocator can be had in no other way")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use vedette::cameras::{Encoder, Meter, Mode, PixelFormat};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the promises that `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(mut work: impl FnMut()) -> usize {
    // The first frame makes the buffers.
    work();
    let before = COUNT.get();
    (0..10).for_each(|_| work());
    COUNT.get() - before
}

fn mode(format: PixelFormat) -> Mode {
    let stride = if format == PixelFormat::Mjpg { 0 } else { 640 };
    Mode { format, width: 320, height: 240, stride, limited_range: true, frame_interval: Duration::ZERO }
}

#[test]
fn a_frame_costs_one_allocation_and_its_difference_none() {
    let data: Vec<u8> = (0..640 * 480).map(|at| (at / 7 % 251) as u8).collect();
    let mut encoder = Encoder::new(80, usize::MAX).unwrap();
    let mut meter = Meter::new().unwrap();
    for format in PixelFormat::LADDER.into_iter().filter(|format| *format != PixelFormat::Mjpg) {
        let mode = mode(format);
        assert_eq!(allocations(|| drop(encoder.encode(&mode, &data).unwrap())), 10, "{mode}");
        assert_eq!(allocations(|| _ = meter.grid(&mode, &data).unwrap()), 0, "{mode}");
    }

    let jpeg = encoder.encode(&mode(PixelFormat::Yuyv), &data).unwrap().jpeg;
    // As most webcams send it: without tables, so that each frame is mended.
    let find = |marker: u8| jpeg.windows(2).position(|pair| pair == [0xFF, marker]).unwrap();
    let bare = [&jpeg[..find(0xC4)], &jpeg[find(0xDA)..]].concat();
    let mjpg = mode(PixelFormat::Mjpg);
    assert_eq!(allocations(|| drop(encoder.encode(&mjpg, &bare).unwrap())), 10);
    assert_eq!(allocations(|| _ = meter.grid(&mjpg, &bare).unwrap()), 0);
    // Too large as the camera made it.
    let mut small = Encoder::new(80, jpeg.len() / 2).unwrap();
    assert_eq!(allocations(|| drop(small.encode(&mjpg, &bare).unwrap())), 10);
}
