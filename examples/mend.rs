//! Mends JPEGs as the cameras' Motion JPEG is mended, for tests from without: from standard input to standard output, each
//! JPEG after its length in four bytes, big-endian. What is refused comes back empty.
//!
//! `cargo run --example mend`

use std::io::{self, Read, Write};
use vedette::cameras::jpeg;

fn main() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input)?;
    let (mut output, mut buffer) = (io::BufWriter::new(io::stdout().lock()), Vec::new());
    let mut rest = &input[..];
    while let Some((length, after)) = rest.split_first_chunk() {
        let (data, after) =
            after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        let jpeg = jpeg::repair(data, &mut buffer).map_or(&[][..], |(_, jpeg)| jpeg);
        output.write_all(&(jpeg.len() as u32).to_be_bytes())?;
        output.write_all(jpeg)?;
        rest = after;
    }
    output.flush()
}
