//! What a frame costs: to encode, to compare, to mend.
//!
//! `cargo bench --bench encode`, or `scripts/bench encode`, which sets it beside libjpeg-turbo's own tjbench: for that the
//! picture is left at target/tmp/bench-*.ppm. "planes" is libjpeg-turbo alone, given planes that are ready: what a packed
//! format costs more is our deinterleave.

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use turbojpeg::{Compressor, OutputBuf, Subsamp, YuvPlanesImage};
use vedette::cameras::{Encoder, Meter, Mode, PixelFormat, jpeg};

const QUALITY: u8 = 80;
const SIZES: [(&str, usize, usize); 2] = [("720p", 1280, 720), ("1080p", 1920, 1080)];

/// Shades, edges and a sensor's noise, so that the JPEG is as large as a camera's. Full range, as tjbench's is.
struct Scene {
    width: usize,
    height: usize,
    /// Of each pixel.
    yuv: Vec<[u8; 3]>,
}

impl Scene {
    fn new(name: &str, width: usize, height: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(3);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                let shade = |period: f64| ((x as f64 / period).sin() + (y as f64 / period / 1.3).cos()) * 50.0 + 128.0;
                let edge = if (x / 40 + y / 30) % 3 == 0 { 25.0 } else { 0.0 };
                let noise = random.f64() * 16.0 - 8.0;
                rgb.extend(
                    [shade(130.0), shade(310.0), shade(90.0)].map(|c| (c + edge + noise).clamp(0.0, 255.0) as u8),
                );
            }
        }
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}.ppm"));
        let mut file = std::fs::File::create(path).expect("a place for the picture");
        writeln!(file, "P6 {width} {height} 255").and_then(|()| file.write_all(&rgb)).expect("room for the picture");
        // JFIF 1.02's conversion.
        let yuv = rgb.chunks_exact(3).map(|pixel| {
            let [r, g, b] = [0, 1, 2].map(|at| f64::from(pixel[at]));
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            [y, (b - y) / 1.772 + 128.0, (r - y) / 1.402 + 128.0].map(|c| c.round() as u8)
        });
        Self { width, height, yuv: yuv.collect() }
    }

    /// The mean of a chroma component over a block of pixels.
    fn chroma(&self, component: usize, x: usize, y: usize, across: usize, down: usize) -> u8 {
        let lines = (y..y + down).map(|y| &self.yuv[y * self.width + x..][..across]);
        let sum: usize = lines.flatten().map(|pixel| usize::from(pixel[component])).sum();
        (sum / across / down) as u8
    }

    fn plane(&self, component: usize, across: usize, down: usize) -> Vec<u8> {
        let at = |index: usize| (index % (self.width / across) * across, index / (self.width / across) * down);
        let count = (self.width / across) * (self.height / down);
        (0..count).map(at).map(|(x, y)| self.chroma(component, x, y, across, down)).collect()
    }

    fn frame(&self, format: PixelFormat) -> (Mode, Vec<u8>) {
        let (stride, data) = match format {
            PixelFormat::Yuyv => {
                let (y, u, v) = (self.plane(0, 1, 1), self.plane(1, 2, 1), self.plane(2, 2, 1));
                let chroma = u.iter().zip(&v);
                (2 * self.width, y.chunks_exact(2).zip(chroma).flat_map(|(y, (u, v))| [y[0], *u, y[1], *v]).collect())
            }
            PixelFormat::Nv12 => {
                let (mut y, u, v) = (self.plane(0, 1, 1), self.plane(1, 2, 2), self.plane(2, 2, 2));
                y.extend(u.iter().zip(&v).flat_map(|(u, v)| [*u, *v]));
                (self.width, y)
            }
            _ => unreachable!("only these are measured"),
        };
        (self.mode(format, stride), data)
    }

    fn mode(&self, format: PixelFormat, stride: usize) -> Mode {
        let (width, height, stride) = (self.width as u32, self.height as u32, stride as u32);
        Mode { format, width, height, stride, limited_range: false, frame_interval: Duration::ZERO }
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, width, height) in SIZES {
        let scene = Scene::new(name, width, height);
        for (format, subsamp) in [(PixelFormat::Yuyv, Subsamp::Sub2x1), (PixelFormat::Nv12, Subsamp::Sub2x2)] {
            let (mode, data) = scene.frame(format);
            let mut encoder = Encoder::new(QUALITY, usize::MAX).expect("an encoder");
            let bytes = encoder.encode(&mode, &data).expect("a whole frame").jpeg.len();
            eprintln!("{mode}: {bytes} bytes");
            let mut run = |name: String, mode: &Mode| {
                group.bench_function(name, |bencher| {
                    bencher.iter(|| encoder.encode(mode, black_box(&data)).expect("a frame"))
                });
            };
            run(format!("{name} {format}"), &mode);
            run(format!("{name} {format} limited range"), &Mode { limited_range: true, ..mode });
            planes(&mut group, &format!("{name} {format} planes"), &scene, subsamp);
        }
    }
}

fn planes(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, scene: &Scene, subsamp: Subsamp) {
    let &Scene { width, height, .. } = scene;
    let (across, down) = subsamp.size();
    let [y, u, v] = [scene.plane(0, 1, 1), scene.plane(1, across, down), scene.plane(2, across, down)];
    let (y_stride, u_stride, v_stride) = (width, width / across, width / across);
    let image = YuvPlanesImage {
        y_plane: &y[..],
        u_plane: &u[..],
        v_plane: &v[..],
        width,
        height,
        y_stride,
        u_stride,
        v_stride,
        subsamp,
    };
    let mut compressor = Compressor::new().expect("a compressor");
    compressor.set_quality(QUALITY.into()).expect("a quality");
    let mut output = vec![0; turbojpeg::compressed_buf_len(width, height, subsamp).expect("a size")];
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let mut output = OutputBuf::borrowed(&mut output);
            compressor.compress_yuv_planes(black_box(&image), &mut output).expect("a picture");
            output.len()
        });
    });
}

fn compare(criterion: &mut Criterion) {
    let scene = Scene::new("1080p", 1920, 1080);
    let mut meter = Meter::new().expect("a meter");
    let mut group = criterion.benchmark_group("difference");
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
        let (mode, data) = scene.frame(format);
        group.bench_function(format!("1080p {format}"), |bencher| {
            bencher.iter(|| meter.grid(&mode, black_box(&data)).expect("a whole frame"));
        });
    }
    let (mjpg, jpeg) = motion_jpeg(&scene);
    group.bench_function("1080p MJPG", |bencher| {
        bencher.iter(|| meter.grid(&mjpg, black_box(&jpeg)).expect("a whole frame"));
    });
    let (one, other) = (meter.grid(&mjpg, &jpeg).expect("a frame"), {
        let (mode, data) = scene.frame(PixelFormat::Nv12);
        meter.grid(&Mode { limited_range: true, ..mode }, &data).expect("a frame")
    });
    for (name, ignore_brightness) in [("two grids", false), ("two grids, brightness ignored", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&one).difference(black_box(&other), 1.0, ignore_brightness));
        });
    }
}

/// About 400 kB, as a good webcam's.
fn motion_jpeg(scene: &Scene) -> (Mode, Vec<u8>) {
    let (mode, data) = scene.frame(PixelFormat::Yuyv);
    let encoder =
        |quality| Encoder::new(quality, usize::MAX).expect("an encoder").encode(&mode, &data).expect("a frame").jpeg;
    let jpeg = (60..95).map(encoder).find(|jpeg| jpeg.len() > 400_000).expect("a quality that takes so much");
    eprintln!("MJPG: {} bytes", jpeg.len());
    (scene.mode(PixelFormat::Mjpg, 0), jpeg.to_vec())
}

fn repair(criterion: &mut Criterion) {
    let scene = Scene::new("1080p", 1920, 1080);
    let (_, jpeg) = motion_jpeg(&scene);
    let mut bare = jpeg.clone();
    // The four tables are one behind the other.
    let find = |marker: u8| jpeg.windows(2).position(|pair| pair == [0xFF, marker]).expect("a segment");
    bare.drain(find(0xC4)..find(0xDA));
    let mut buffer = Vec::new();
    let mut group = criterion.benchmark_group("repair");
    for (name, jpeg) in [("1080p MJPG", &jpeg), ("1080p MJPG without tables", &bare)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| jpeg::repair(black_box(jpeg), &mut buffer).expect("a whole frame").1.len());
        });
    }
}

criterion_group!(benches, encode, compare, repair);
criterion_main!(benches);
