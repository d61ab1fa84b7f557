//! For tests and the fuzzer: bytes are read as if they were of each of the store's formats, and what was understood is
//! written and read again.

use super::record::Row;
use super::{block, journal, wire};

pub fn examine(bytes: &[u8]) {
    let mut rows = Vec::new();
    journal::read(bytes, |entry| {
        if let journal::Entry::Row(_, row) = entry {
            // A block does not say it.
            rows.push(Row { is_kept: true, ..row });
        }
    });
    // Where the body begins is for the first byte to say.
    let (times, body) = bytes.split_at(bytes.len().min(usize::from(bytes.first().copied().unwrap_or(0))));
    rows.extend(block::decode(times, body).unwrap_or_default());
    rows.sort_by_key(|row: &Row| row.record.time());
    for rows in rows.chunks(block::MOST) {
        let back = block::decode(&block::times(rows), &block::encode(rows));
        // By what they look like, because NaN is not equal to itself.
        assert_eq!(format!("{:?}", back.as_deref()), format!("{:?}", Ok::<_, wire::Damaged>(rows)));
    }
}
