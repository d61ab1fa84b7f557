//! IndexRange: parts of values, read, monitored and written (OPC 10000-4, 7.27).
//!
//! The UA crate cuts Strings by bytes and panics in the middle of a character, with locks held, also when it cuts the value
//! of a monitored item. So a part that begins or ends inside of a character is no data here, and never comes to it.

use ::opcua::types::{Array, ByteString, DataValue, DateTime, NumericRange, StatusCode, TimestampsToReturn, Variant};

/// The part of a value that a Read asks for.
pub fn part(whole: &Variant, range: &NumericRange) -> Result<Variant, StatusCode> {
    if cuts_a_character(whole, range) {
        return Err(StatusCode::BadIndexRangeNoData);
    }
    whole.range_of(range)
}

/// Applies IndexRange and TimestampsToReturn, as the Read service wants them.
pub fn finish(mut value: DataValue, range: &NumericRange, timestamps: TimestampsToReturn) -> DataValue {
    if *range != NumericRange::None
        && let Some(whole) = value.value.take().filter(|whole| *whole != Variant::Empty)
    {
        match part(&whole, range) {
            Ok(part) => value.value = Some(part),
            Err(status) => value = DataValue::new_now_status(Variant::Empty, status),
        }
    }
    if matches!(timestamps, TimestampsToReturn::Source | TimestampsToReturn::Neither) {
        value.server_timestamp = None;
    } else {
        value.server_timestamp.get_or_insert_with(DateTime::now);
    }
    if matches!(timestamps, TimestampsToReturn::Server | TimestampsToReturn::Neither) {
        value.source_timestamp = None;
    }
    value
}

/// A whole value for a monitored item whose range the crate applies: as it is, or what the crate may safely cut.
pub fn for_item(mut value: DataValue, range: &NumericRange) -> DataValue {
    if *range == NumericRange::None {
        return value;
    }
    match &value.value {
        // The crate would put a status of its own in the place of the one that says what is wrong.
        Some(Variant::Empty) => value.value = None,
        Some(whole) if cuts_a_character(whole, range) => {
            value.value = None;
            value.status = Some(StatusCode::BadIndexRangeNoData);
        }
        _ => {}
    }
    value
}

fn cuts_a_character(whole: &Variant, range: &NumericRange) -> bool {
    let Variant::String(text) = whole else { return false };
    let text = text.as_ref();
    let is_inside = |at: u32| {
        let at = at as usize;
        at < text.len() && !text.is_char_boundary(at)
    };
    match range {
        NumericRange::None => false,
        NumericRange::Index(at) => is_inside(*at) || is_inside(at.saturating_add(1)),
        NumericRange::Range(first, last) => is_inside(*first) || is_inside(last.saturating_add(1)),
        NumericRange::MultipleRanges(ranges) => ranges.iter().any(|range| cuts_a_character(whole, range)),
    }
}

/// `whole` with `new` in the place of a part of it (OPC 10000-4, 5.11.4): arrays and ByteStrings only.
pub fn replaced(whole: &Variant, range: &NumericRange, new: &Variant) -> Result<Variant, StatusCode> {
    let (first, last) = match range {
        NumericRange::None => return Ok(new.clone()),
        NumericRange::Index(at) => (*at as usize, *at as usize),
        NumericRange::Range(first, last) => (*first as usize, *last as usize),
        // Arrays here have one dimension.
        NumericRange::MultipleRanges(_) => return Err(StatusCode::BadIndexRangeNoData),
    };
    let is_whole = |length: usize, found: usize| {
        if last >= length {
            Err(StatusCode::BadIndexRangeNoData)
        } else if found != last - first + 1 {
            Err(StatusCode::BadIndexRangeDataMismatch)
        } else {
            Ok(())
        }
    };
    match (whole, new) {
        (Variant::Array(array), Variant::Array(part)) if array.value_type == part.value_type => {
            is_whole(array.values.len(), part.values.len())?;
            let mut values = array.values.clone();
            values[first..=last].clone_from_slice(&part.values);
            let array = Array::new(array.value_type, values).map_err(|_| StatusCode::BadTypeMismatch)?;
            Ok(Variant::Array(Box::new(array)))
        }
        (Variant::ByteString(bytes), Variant::ByteString(part)) => {
            let mut bytes = bytes.value.clone().unwrap_or_default();
            let part = part.value.as_deref().unwrap_or_default();
            is_whole(bytes.len(), part.len())?;
            bytes[first..=last].copy_from_slice(part);
            Ok(Variant::ByteString(ByteString { value: Some(bytes) }))
        }
        (Variant::Array(_) | Variant::ByteString(_), _) => Err(StatusCode::BadTypeMismatch),
        _ => Err(StatusCode::BadWriteNotSupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> NumericRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_character_is_never_cut() {
        let text = Variant::from("Süd");
        assert_eq!(part(&text, &range("0")), Ok(Variant::from("S")));
        assert_eq!(part(&text, &range("1:2")), Ok(Variant::from("ü")));
        assert_eq!(part(&text, &range("3:9")), Ok(Variant::from("d")));
        for inside in ["1", "2", "0:1", "2:3"] {
            assert_eq!(part(&text, &range(inside)), Err(StatusCode::BadIndexRangeNoData), "{inside}");
            let value = for_item(DataValue::new_now(text.clone()), &range(inside));
            assert_eq!((value.value, value.status), (None, Some(StatusCode::BadIndexRangeNoData)));
        }
        assert_eq!(part(&text, &range("4")), Err(StatusCode::BadIndexRangeNoData));
    }

    #[test]
    fn parts_are_replaced_if_they_fit() {
        let array = Variant::from(vec![1.0, 2.0, 3.0]);
        assert_eq!(replaced(&array, &range("1:2"), &vec![8.0, 9.0].into()), Ok(vec![1.0, 8.0, 9.0].into()));
        let refused = |at: &str, part: Variant| replaced(&array, &range(at), &part).unwrap_err();
        assert_eq!(refused("2:3", vec![8.0, 9.0].into()), StatusCode::BadIndexRangeNoData);
        assert_eq!(refused("1:2", vec![8.0].into()), StatusCode::BadIndexRangeDataMismatch);
        assert_eq!(refused("1", 8.0.into()), StatusCode::BadTypeMismatch);
        assert_eq!(refused("1:2", vec![8, 9].into()), StatusCode::BadTypeMismatch);
        let bytes = |bytes: &[u8]| Variant::ByteString(bytes.to_vec().into());
        assert_eq!(replaced(&bytes(&[1, 2, 3]), &range("1"), &bytes(&[9])), Ok(bytes(&[1, 9, 3])));
        assert_eq!(replaced(&5.into(), &range("0"), &6.into()), Err(StatusCode::BadWriteNotSupported));
    }

    #[test]
    fn a_range_of_a_picture_is_part_of_it_and_timestamps_go_as_asked() {
        let picture = Variant::ByteString(vec![1, 2, 3, 4].into());
        let value = || DataValue::new_now(picture.clone());
        let part = finish(value(), &"1:2".parse().unwrap(), TimestampsToReturn::Neither);
        assert_eq!(part.value, Some(Variant::ByteString(vec![2, 3].into())));
        assert_eq!((part.source_timestamp, part.server_timestamp), (None, None));
        let beyond = finish(value(), &"9".parse().unwrap(), TimestampsToReturn::Both);
        assert_eq!(beyond.status, Some(StatusCode::BadIndexRangeNoData));
    }
}
