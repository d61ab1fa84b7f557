use super::*;
use proptest::prelude::*;
use turbojpeg::{PixelFormat, Subsamp};

/// A picture with something in every block, encoded by libjpeg-turbo with the standard tables.
fn sample() -> Vec<u8> {
    let image = turbojpeg::Image::mandelbrot(96, 64, PixelFormat::RGB);
    turbojpeg::compress(image.as_deref(), 80, Subsamp::Sub2x1).unwrap().to_vec()
}

fn pixels(jpeg: &[u8]) -> Vec<u8> {
    turbojpeg::decompress(jpeg, PixelFormat::RGB).unwrap().pixels
}

fn repaired(data: &[u8]) -> Result<Vec<u8>, Fault> {
    repair(data, &mut Vec::new()).map(|(_, jpeg)| jpeg.to_vec())
}

/// The segments up to the scan, and the scan to the end.
fn split(jpeg: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut segments = Vec::new();
    let mut at = 2;
    while jpeg[at + 1] != SOS {
        let next = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        segments.push(jpeg[at..next].to_vec());
        at = next;
    }
    (segments, jpeg[at..].to_vec())
}

fn join(segments: &[Vec<u8>], scan: &[u8]) -> Vec<u8> {
    [&[0xFF, SOI], &segments.concat()[..], scan].concat()
}

fn without(jpeg: &[u8], is_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut segments, scan) = split(jpeg);
    segments.retain(|segment| !is_out(segment));
    join(&segments, &scan)
}

#[test]
fn a_whole_jpeg_passes_untouched() {
    let jpeg = sample();
    let mut buffer = Vec::new();
    let (header, found) = repair(&jpeg, &mut buffer).unwrap();
    assert_eq!((header.width, header.height), (96, 64));
    assert_eq!(found, jpeg);
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn missing_tables_are_inserted_and_the_picture_is_the_same() {
    let jpeg = sample();
    let bare = without(&jpeg, |segment| segment[1] == DHT);
    assert!(bare.len() < jpeg.len());
    let mended = repaired(&bare).unwrap();
    assert_eq!(pixels(&mended), pixels(&jpeg));
    assert_eq!(repaired(&mended).unwrap(), mended);
    // Also if only one of them lacks.
    for class_and_id in [0x00, 0x01, 0x10, 0x11] {
        let bare = without(&jpeg, |segment| segment[1] == DHT && segment[4] == class_and_id);
        assert!(bare.len() < jpeg.len());
        assert_eq!(pixels(&repaired(&bare).unwrap()), pixels(&jpeg));
    }
}

#[test]
fn what_stands_before_and_after_is_cut() {
    let jpeg = sample();
    assert_eq!(repaired(&[&jpeg[..], &[0; 100]].concat()).unwrap(), jpeg);
    assert_eq!(repaired(&[&jpeg[..], &jpeg[..700]].concat()).unwrap(), jpeg);
    assert_eq!(repaired(&[&[0; 12], &jpeg[..]].concat()).unwrap(), jpeg);
    assert_eq!(repaired(&[&[0; 65], &jpeg[..]].concat()), Err(Fault::NoStart));
}

#[test]
fn fill_bytes_are_no_fault() {
    let (mut segments, mut scan) = split(&sample());
    segments.insert(1, vec![0xFF; 3]);
    // Before the end of image; the marker's own FF follows.
    scan.splice(scan.len() - 2..scan.len() - 2, [0xFF; 5]);
    let jpeg = join(&segments, &scan);
    assert_eq!(repaired(&jpeg).unwrap(), jpeg);
    assert_eq!(pixels(&jpeg), pixels(&sample()));
}

#[test]
fn what_is_not_whole_is_refused() {
    let jpeg = sample();
    assert_eq!(repaired(&[]), Err(Fault::NoStart));
    assert_eq!(repaired(b"\x89PNG"), Err(Fault::NoStart));
    assert_eq!(repaired(&jpeg[..jpeg.len() - 2]), Err(Fault::NoEnd));
    assert_eq!(repaired(&jpeg[..10]), Err(Fault::CutHeader(10)));
    assert_eq!(repaired(&[0xFF, SOI, 0xFF, EOI]), Err(Fault::Incomplete));
    let mut damaged = jpeg.clone();
    damaged[20] = 0;
    assert_eq!(repaired(&damaged), Err(Fault::NoSegment(20)));
}

#[test]
fn the_quality_is_read_from_the_tables() {
    let image = turbojpeg::Image::mandelbrot(16, 16, PixelFormat::RGB);
    // Below, steps would be more than the 255 that fit.
    for quality in [20, 25, 50, 65, 80, 90, 95, 100] {
        let jpeg = turbojpeg::compress(image.as_deref(), quality, Subsamp::Sub2x2).unwrap();
        let found = repair(&jpeg, &mut Vec::new()).unwrap().0.quality();
        assert!((i32::from(found) - quality).abs() <= 1, "{found} of {quality}");
    }
}

/// Replaces the content of the first segment with that marker; the length follows.
fn with(marker: u8, edit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let (mut segments, mut scan) = split(&sample());
    // The scan header is a segment as well.
    let header = scan.drain(..2 + usize::from(scan[3])).collect();
    segments.push(header);
    let segment = segments.iter_mut().find(|segment| segment[1] == marker).unwrap();
    let mut content = segment.split_off(4);
    edit(&mut content);
    segment[2..].copy_from_slice(&u16::try_from(content.len() + 2).unwrap().to_be_bytes());
    segment.extend(content);
    join(&segments, &scan)
}

#[test]
fn segments_that_viewers_refuse_are_refused_with_the_reason() {
    const SOF: u8 = 0xC0;
    const DQT: u8 = 0xDB;
    const APP0: u8 = 0xE0;
    let cases: [(&str, Vec<u8>); 28] = [
        ("its samples have not 8 bits", with(SOF, |sof| sof[0] = 12)),
        ("no camera has that many pixels", with(SOF, |sof| sof[1..3].fill(0))),
        ("no camera has that many pixels", with(SOF, |sof| sof[3..5].fill(0))),
        ("no camera has that many pixels", with(SOF, |sof| sof[1..5].fill(0xFF))),
        ("it has neither one component nor three", with(SOF, |sof| sof[5] = 4)),
        ("its length does not match its components", with(SOF, |sof| sof[5] = 1)),
        ("a sampling factor is not 1 to 4", with(SOF, |sof| sof[7] = 0x01)),
        ("a sampling factor is not 1 to 4", with(SOF, |sof| sof[7] = 0x15)),
        ("its sampling factors are not multiples", with(SOF, |sof| (sof[7], sof[10]) = (0x31, 0x21))),
        ("two components have one identifier", with(SOF, |sof| sof[9] = sof[6])),
        ("a quantization table is not 0 to 3", with(SOF, |sof| sof[8] = 4)),
        ("a quantization table lacks", with(SOF, |sof| sof[8] = 3)),
        ("a quantization table lacks", with(DQT, |dqt| *dqt = [&[0x10][..], &[1; 128]].concat())),
        ("there is no such table", with(DQT, |dqt| dqt[0] = 4)),
        ("it is too short", with(DQT, |dqt| dqt.truncate(64))),
        ("there is no such table", with(DHT, |dht| dht[0] = 0x20)),
        ("it is too short", with(DHT, |dht| dht.truncate(16))),
        ("more codes than their lengths allow", with(DHT, |dht| (dht[1], dht[3]) = (2, 3))),
        ("a DC code for more than 15 bits", with(DHT, |dht| dht[17] = 16)),
        ("it is too short", with(DHT, |dht| dht[2] = 255)),
        ("it is too short", with(APP0, |app0| *app0 = b"JFIF\0\x01".to_vec())),
        ("its length does not match its components", with(SOS, |sos| sos[0] = 4)),
        ("its length does not match its components", with(SOS, |sos| sos.truncate(7))),
        ("it has a component that the frame has not", with(SOS, |sos| sos[1] = 77)),
        ("its components come twice or not in the frame's order", with(SOS, |sos| sos[3] = sos[1])),
        ("its components come twice or not in the frame's order", with(SOS, |sos| sos.swap(1, 3))),
        ("a Huffman table lacks", with(SOS, |sos| sos[2] = 0x22)),
        ("a Huffman table lacks", with(SOS, |sos| sos[2] = 0xF0)),
    ];
    for (at, (reason, jpeg)) in cases.iter().enumerate() {
        match repaired(jpeg) {
            Err(Fault::Bad { why, .. }) => assert_eq!(why, *reason, "case {at}"),
            other => panic!("case {at}, {reason}: {other:?}"),
        }
    }
    let with_marker = |marker| {
        let mut jpeg = sample();
        let at = jpeg.windows(2).position(|pair| pair == [0xFF, SOF]).unwrap();
        jpeg[at + 1] = marker;
        (at, repaired(&jpeg))
    };
    assert_eq!(with_marker(0xC3).1, Err(Fault::Coding(3)));
    assert_eq!(with_marker(0xC9).1, Err(Fault::Coding(9)));
    for marker in [0x00, 0x01, 0xC8, 0xCC, 0xD0, 0xD8, 0xDE, 0xF0] {
        let (at, found) = with_marker(marker);
        assert_eq!(found, Err(Fault::Misplaced { marker, at }));
    }
    let dri = [&[0xFF, SOI, 0xFF, 0xDD, 0, 3, 1][..], &sample()[2..]].concat();
    assert!(matches!(repaired(&dri), Err(Fault::Bad { segment: "restart interval", at: 2, .. })));
    // What Pillow reads of application data must be there.
    for (marker, content) in [(0xE2, &b"ICC_PROFILE\0\x01"[..]), (0xEE, b"Adobe\0")] {
        let (mut segments, scan) = split(&sample());
        segments.insert(0, [&[0xFF, marker, 0, content.len() as u8 + 2], content].concat());
        assert!(matches!(repaired(&join(&segments, &scan)), Err(Fault::Bad { segment: "application data", .. })));
    }
    // Two frame headers; a scan before any.
    let (segments, scan) = split(&sample());
    let twice: Vec<_> = segments.iter().chain(segments.iter().filter(|s| s[1] == SOF)).cloned().collect();
    assert!(matches!(repaired(&join(&twice, &scan)), Err(Fault::Misplaced { marker: SOF, .. })));
    let none = without(&sample(), |segment| segment[1] == SOF);
    assert!(matches!(repaired(&none), Err(Fault::Misplaced { marker: SOS, .. })));
}

#[test]
fn a_scan_shows_that_a_part_is_lost() {
    // A header that claims more than there can be.
    let large = with(0xC0, |sof| sof[1..5].copy_from_slice(&[0x20, 0, 0x20, 0]));
    assert!(matches!(repaired(&large), Err(Fault::Thin { width: 8192, height: 8192, .. })));
    // Two of three components, then the end.
    let few = with(SOS, |sos| {
        sos.drain(5..7);
        sos[0] = 2;
    });
    assert_eq!(repaired(&few), Err(Fault::Incomplete));
    // A restart marker that is out of turn, though none lacks.
    let mut jpeg = fixture("whole/restarts.jpg");
    let at = |number: u8| move |pair: &[u8]| pair == [0xFF, 0xD0 + number];
    let (one, two) = (jpeg.windows(2).position(at(1)).unwrap(), jpeg.windows(2).position(at(2)).unwrap());
    jpeg.swap(one + 1, two + 1);
    assert_eq!(repaired(&jpeg), Err(Fault::Gap { at: one }));
    // A second scan of the same components.
    let (segments, mut scan) = split(&sample());
    scan.truncate(scan.len() - 2);
    assert!(matches!(
        repaired(&join(&segments, &[&scan[..], &split(&sample()).1].concat())),
        Err(Fault::Misplaced { .. })
    ));
}

/// tests/fixtures/jpeg, whose README says what they are.
fn fixtures(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

fn fixture(file: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg").join(file)).unwrap()
}

#[test]
fn scans_without_end_are_refused() {
    let mut jpeg = fixture("whole/progressive.jpg");
    jpeg.truncate(jpeg.len() - 2);
    let last = jpeg.windows(2).rposition(|pair| pair == [0xFF, SOS]).unwrap();
    let scan = jpeg[last..].to_vec();
    (0..100).for_each(|_| jpeg.extend_from_slice(&scan));
    jpeg.extend([0xFF, EOI]);
    assert!(matches!(repaired(&jpeg), Err(Fault::Bad { why: "there are too many", .. })));
}

#[test]
fn every_fixture_passes_is_mended_or_refused() {
    for (file, data) in fixtures("whole") {
        assert_eq!(repaired(&data).as_ref(), Ok(&data), "{file}");
        assert_eq!(hard_error(&data), None, "{file}");
    }
    let picture = pixels(&fixtures("whole")[0].1);
    for (file, data) in fixtures("mended") {
        assert_eq!(pixels(&repaired(&data).expect(&file)), picture, "{file}");
    }
    for (file, data) in fixtures("refused") {
        assert!(repaired(&data).is_err(), "{file}");
    }
}

/// What libjpeg-turbo refuses with, unless it only warns (JWRN_* in its jerror.h).
fn hard_error(jpeg: &[u8]) -> Option<String> {
    const WARNINGS: [&str; 6] = [
        "Corrupt JPEG data",
        "Inconsistent progression sequence",
        "Invalid SOS parameters for sequential JPEG",
        "Unknown Adobe color transform code",
        "Warning: unknown JFIF revision number",
        "Premature end of JPEG file",
    ];
    let text = turbojpeg::decompress(jpeg, PixelFormat::RGB).err()?.to_string();
    (!WARNINGS.iter().any(|warning| text.contains(warning))).then_some(text)
}

/// What a cable, a driver or a dying camera may do to a frame.
fn damage(random: &mut fastrand::Rng, jpeg: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
    let at = random.usize(..jpeg.len());
    // The header is small but rich.
    let at = if random.bool() { at } else { at.min(random.usize(..700)) };
    let to = (at + random.usize(1..64)).min(jpeg.len());
    match random.u8(..8) {
        0 => jpeg[at] = random.u8(..),
        1 => jpeg[at] ^= 1 << random.u8(..8),
        2 => jpeg[at] = *random.choice(&[0x00, 0x01, 0x7F, 0x80, 0xFF, 0xC4, 0xDA, 0xD9]).unwrap(),
        3 => drop(jpeg.drain(at..to)),
        4 => drop(jpeg.splice(at..at, std::iter::repeat_with(|| random.u8(..)).take(to - at))),
        5 => jpeg.extend_from_within(at..),
        6 => {
            jpeg.truncate(at);
            jpeg.extend([0xFF, EOI]);
        }
        _ => {
            let (_, other) = random.choice(others).unwrap();
            let part = other.get(at..to).unwrap_or_default().to_vec();
            jpeg.splice(at..to, part);
        }
    }
    if jpeg.is_empty() {
        jpeg.push(0);
    }
}

/// The fuzz target does the same for hours.
#[test]
fn what_passes_is_never_refused_by_libjpeg() {
    let mut random = fastrand::Rng::with_seed(1);
    let seeds = [fixtures("whole"), fixtures("mended"), fixtures("refused")].concat();
    let seeds: Vec<_> = seeds.into_iter().filter(|(_, data)| !data.is_empty()).collect();
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut jpeg = random.choice(&seeds).unwrap().1.clone();
        for _ in 0..random.usize(1..4) {
            damage(&mut random, &mut jpeg, &seeds);
        }
        let Ok(found) = repaired(&jpeg) else {
            refused += 1;
            continue;
        };
        passed += 1;
        assert!(found.starts_with(&[0xFF, SOI]) && found.ends_with(&[0xFF, EOI]));
        assert_eq!(repaired(&found).as_ref(), Ok(&found));
        assert_eq!(hard_error(&found), None, "{jpeg:02X?}");
    }
    assert!(passed > 2_000 && refused > 2_000, "{passed} passed, {refused} refused: that is no test");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = repaired(&data);
        let _ = repaired(&[&[0xFF, SOI, 0xFF][..], &data].concat());
    }
}
