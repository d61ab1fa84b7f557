//! VARIANT and [`DaValue`], both ways.
//!
//! A SAFEARRAY lies with its first dimension fastest; [`DaValue`] has the last one fastest, as OPC UA wants it.

use super::abi::*;
use super::memory::{MOST_ELEMENTS, Variant, slice};
use crate::relay::protocol::{DaValue, Elements, Hresult};
use std::ffi::c_void;
use std::ptr;
use windows_sys::Win32::Foundation::{SysAllocStringLen, SysStringLen};
use windows_sys::Win32::System::Com::{SAFEARRAY, SAFEARRAYBOUND};
use windows_sys::Win32::System::Ole::{
    SafeArrayAccessData, SafeArrayCreate, SafeArrayGetDim, SafeArrayGetElemsize, SafeArrayGetLBound,
    SafeArrayGetUBound, SafeArrayPutElement, SafeArrayUnaccessData,
};
use windows_sys::Win32::System::Variant::{VARIANT_ALPHABOOL, VariantChangeTypeEx, VariantCopyInd};

const VT_BYREF: u16 = 0x4000;
const DISP_E_TYPEMISMATCH: Hresult = 0x8002_0005_u32 as Hresult;
const E_OUTOFMEMORY: Hresult = 0x8007_000E_u32 as Hresult;

/// English: a point in numbers, whatever the account's settings are.
const LOCALE: u32 = 0x0409;

/// From 1601 to 1899-12-30, in days.
const DATE_EPOCH: f64 = 109_205.0;
const FILETIME_PER_DAY: f64 = 864e9;

/// More dimensions than anybody has; SAFEARRAY allows 65535.
const MOST_DIMENSIONS: u32 = 16;

/// Arrays of VARIANTs in each other: deeper is nothing that a DA server means, and the relay refuses it.
const DEEPEST: usize = 8;

/// # Safety
/// The VARIANT is whole: what its type says it holds is there.
pub(super) unsafe fn value(raw: &RawVariant) -> DaValue {
    // SAFETY: the caller's promise.
    unsafe { value_at(raw, 0) }
}

/// # Safety
/// As above. `depth` arrays are around it.
unsafe fn value_at(raw: &RawVariant, depth: usize) -> DaValue {
    let bits = raw.data[0];
    match raw.vt {
        VT_EMPTY => DaValue::Empty,
        VT_NULL => DaValue::Null,
        VT_BOOL => DaValue::Bool(bits as u16 != 0),
        VT_I1 => DaValue::I1(bits as i8),
        VT_UI1 => DaValue::U1(bits as u8),
        VT_I2 => DaValue::I2(bits as i16),
        VT_UI2 => DaValue::U2(bits as u16),
        VT_I4 | VT_INT => DaValue::I4(bits as i32),
        VT_UI4 | VT_UINT => DaValue::U4(bits as u32),
        VT_I8 => DaValue::I8(bits as i64),
        VT_UI8 => DaValue::U8(bits),
        VT_R4 => DaValue::R4(f32::from_bits(bits as u32)),
        VT_R8 => DaValue::R8(f64::from_bits(bits)),
        VT_CY => DaValue::Cy(bits as i64),
        VT_DATE => DaValue::Date(f64::from_bits(bits)),
        VT_FILETIME => DaValue::Date(bits as f64 / FILETIME_PER_DAY - DATE_EPOCH),
        VT_ERROR => DaValue::Error(bits as Hresult),
        VT_DECIMAL => DaValue::Decimal(decimal(raw.reserved, bits)),
        // SAFETY: a VARIANT of this type holds a BSTR or null.
        VT_BSTR => DaValue::Text(unsafe { bstr(raw.pointer().cast()) }),
        // SAFETY: a VARIANT of this type holds a SAFEARRAY or null.
        vt if vt & !0x0FFF == VT_ARRAY => unsafe { array(vt & 0x0FFF, raw.pointer().cast(), depth) },
        vt if vt & VT_BYREF != 0 && raw.pointer().is_null() => DaValue::Unsupported(vt),
        // SAFETY: the caller's promise.
        vt if vt & VT_BYREF != 0 => unsafe { referenced(raw, depth) },
        vt => DaValue::Unsupported(vt),
    }
}

/// A scale in the low byte and a sign in the high one, then the upper 32 bits, then the lower 64.
fn decimal(head: [u16; 3], low: u64) -> f64 {
    let [scale_and_sign, high_low, high_high] = head;
    let high = (u32::from(high_high) << 16) | u32::from(high_low);
    let size = ((u128::from(high) << 64) | u128::from(low)) as f64 / 10_f64.powi(i32::from(scale_and_sign & 0xFF));
    if scale_and_sign & 0x8000 != 0 { -size } else { size }
}

/// # Safety
/// The pointer is null or a BSTR.
unsafe fn bstr(pointer: *const u16) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise; its length stands before it.
    let units = unsafe { std::slice::from_raw_parts(pointer, SysStringLen(pointer) as usize) };
    String::from_utf16_lossy(units)
}

/// # Safety
/// The VARIANT is whole.
unsafe fn referenced(raw: &RawVariant, depth: usize) -> DaValue {
    let mut copy = Variant(RawVariant::EMPTY);
    // SAFETY: both are VARIANTs, and the copy is ours.
    let result = unsafe { VariantCopyInd((&raw mut copy.0).cast(), ptr::from_ref(raw).cast()) };
    match copy.0.vt {
        vt if result < 0 || vt & VT_BYREF != 0 => DaValue::Unsupported(raw.vt),
        // SAFETY: Windows made it.
        _ => unsafe { value_at(&copy.0, depth) },
    }
}

/// # Safety
/// The pointer is null or a SAFEARRAY.
unsafe fn array(element: u16, array: *const SAFEARRAY, depth: usize) -> DaValue {
    let unsupported = DaValue::Unsupported(VT_ARRAY | element);
    if array.is_null() {
        return DaValue::Empty;
    }
    // SAFETY: the caller's promise, for these and those in the loop.
    let (rank, size) = unsafe { (SafeArrayGetDim(array), SafeArrayGetElemsize(array) as usize) };
    if rank == 0 || rank > MOST_DIMENSIONS || depth == DEEPEST || Some(size) != size_of_element(element) {
        return unsupported;
    }
    let mut dimensions = Vec::new();
    for dimension in 1..=rank {
        let (mut lower, mut upper) = (0, -1);
        // SAFETY: as above; the numbers are ours.
        let results = unsafe {
            [SafeArrayGetLBound(array, dimension, &mut lower), SafeArrayGetUBound(array, dimension, &mut upper)]
        };
        let length = i64::from(upper) - i64::from(lower) + 1;
        match u32::try_from(length) {
            Ok(length) if results.iter().all(|&result| result >= 0) => dimensions.push(length),
            _ => return unsupported,
        }
    }
    let Some(order) = order(&dimensions) else { return unsupported };
    let mut data: *mut c_void = ptr::null_mut();
    // SAFETY: as above; unlocked below.
    if unsafe { SafeArrayAccessData(array, &mut data) } < 0 {
        return unsupported;
    }
    // SAFETY: locked, there are as many elements of this size as the dimensions say.
    let elements = unsafe { elements(element, data, &order, depth) };
    // SAFETY: locked above.
    unsafe { SafeArrayUnaccessData(array) };
    elements.map_or(unsupported, |elements| DaValue::Array { dimensions, elements })
}

fn size_of_element(vt: u16) -> Option<usize> {
    Some(match vt {
        VT_I1 | VT_UI1 => 1,
        VT_I2 | VT_UI2 | VT_BOOL => 2,
        VT_I4 | VT_UI4 | VT_INT | VT_UINT | VT_R4 | VT_ERROR => 4,
        VT_I8 | VT_UI8 | VT_R8 | VT_CY | VT_DATE => 8,
        VT_BSTR => size_of::<*const u16>(),
        VT_DECIMAL => 16,
        VT_VARIANT => size_of::<RawVariant>(),
        _ => return None,
    })
}

/// Where each element lies, in the order in which they are said. None if there are more than go into a message.
fn order(dimensions: &[u32]) -> Option<Vec<usize>> {
    let count = dimensions.iter().try_fold(1_usize, |count, &length| count.checked_mul(length as usize))?;
    if count > MOST_ELEMENTS {
        return None;
    }
    let position = |mut index: usize| {
        let (mut position, mut stride) = (0, count);
        for &length in dimensions.iter().rev() {
            stride /= length as usize;
            position += index % length as usize * stride;
            index /= length as usize;
        }
        position
    };
    Some((0..count).map(position).collect())
}

/// # Safety
/// `data` points to as many elements of this type as `order` has.
unsafe fn elements(vt: u16, data: *const c_void, order: &[usize], depth: usize) -> Option<Elements> {
    /// # Safety
    /// As above.
    unsafe fn each<T, V>(data: *const c_void, order: &[usize], to: impl Fn(&T) -> V) -> Vec<V> {
        // SAFETY: the caller's promise.
        let all = unsafe { slice(data.cast::<T>(), order.len()) };
        order.iter().map(|&position| to(&all[position])).collect()
    }
    // SAFETY: the caller's promise, for each of these.
    Some(unsafe {
        match vt {
            VT_BOOL => Elements::Bool(each(data, order, |&v: &u16| v != 0)),
            VT_I1 => Elements::I1(each(data, order, |&v| v)),
            VT_UI1 => Elements::U1(each(data, order, |&v| v)),
            VT_I2 => Elements::I2(each(data, order, |&v| v)),
            VT_UI2 => Elements::U2(each(data, order, |&v| v)),
            VT_I4 | VT_INT => Elements::I4(each(data, order, |&v| v)),
            VT_UI4 | VT_UINT => Elements::U4(each(data, order, |&v| v)),
            VT_I8 => Elements::I8(each(data, order, |&v| v)),
            VT_UI8 => Elements::U8(each(data, order, |&v| v)),
            VT_R4 => Elements::R4(each(data, order, |&v| v)),
            VT_R8 => Elements::R8(each(data, order, |&v| v)),
            VT_CY => Elements::Cy(each(data, order, |&v| v)),
            VT_DATE => Elements::Date(each(data, order, |&v| v)),
            VT_ERROR => Elements::Error(each(data, order, |&v| v)),
            VT_DECIMAL => Elements::R8(each(data, order, |v: &[u64; 2]| {
                let head = [(v[0] >> 16) as u16, (v[0] >> 32) as u16, (v[0] >> 48) as u16];
                decimal(head, v[1])
            })),
            VT_BSTR => Elements::Text(each(data, order, |&v: &*const u16| bstr(v))),
            VT_VARIANT => Elements::Variant(each(data, order, |v: &RawVariant| value_at(v, depth + 1))),
            _ => return None,
        }
    })
}

/// A VARIANT of the type that the value has by itself.
fn plain(value: &DaValue) -> Result<Variant, Hresult> {
    let of = |vt, bits| {
        let mut raw = RawVariant::EMPTY;
        raw.vt = vt;
        raw.data[0] = bits;
        Ok(Variant(raw))
    };
    match *value {
        DaValue::Empty => of(VT_EMPTY, 0),
        DaValue::Null => of(VT_NULL, 0),
        DaValue::Bool(v) => of(VT_BOOL, if v { 0xFFFF } else { 0 }),
        DaValue::I1(v) => of(VT_I1, v as u64),
        DaValue::U1(v) => of(VT_UI1, v.into()),
        DaValue::I2(v) => of(VT_I2, v as u64),
        DaValue::U2(v) => of(VT_UI2, v.into()),
        DaValue::I4(v) => of(VT_I4, v as u64),
        DaValue::U4(v) => of(VT_UI4, v.into()),
        DaValue::I8(v) => of(VT_I8, v as u64),
        DaValue::U8(v) => of(VT_UI8, v),
        DaValue::R4(v) => of(VT_R4, v.to_bits().into()),
        DaValue::R8(v) => of(VT_R8, v.to_bits()),
        DaValue::Cy(v) => of(VT_CY, v as u64),
        DaValue::Date(v) => of(VT_DATE, v.to_bits()),
        DaValue::Error(v) => of(VT_ERROR, v as u64),
        DaValue::Decimal(v) => changed(&of(VT_R8, v.to_bits())?, VT_DECIMAL),
        DaValue::Text(ref v) => {
            let units: Vec<u16> = v.encode_utf16().collect();
            // SAFETY: so many units are there; the BSTR is the VARIANT's from here on.
            let text = unsafe { SysAllocStringLen(units.as_ptr(), units.len() as u32) };
            if text.is_null() { Err(E_OUTOFMEMORY) } else { of(VT_BSTR, text as usize as u64) }
        }
        DaValue::Array { ref dimensions, ref elements } => built(elements.vartype(), dimensions, elements),
        DaValue::Unsupported(_) => Err(DISP_E_TYPEMISMATCH),
    }
}

/// A VARIANT of the type `canonical`, if the value can be that; 0 takes anything.
pub(super) fn variant(value: &DaValue, canonical: u16) -> Result<Variant, Hresult> {
    match (value, canonical) {
        (_, VT_EMPTY | VT_VARIANT) => plain(value),
        (DaValue::Array { dimensions, elements }, canonical) if canonical & VT_ARRAY != 0 => {
            built(canonical & 0x0FFF, dimensions, elements)
        }
        (DaValue::Array { .. }, _) => Err(DISP_E_TYPEMISMATCH),
        (_, canonical) if canonical & VT_ARRAY != 0 => Err(DISP_E_TYPEMISMATCH),
        _ => {
            let plain = plain(value)?;
            if plain.0.vt == canonical { Ok(plain) } else { changed(&plain, canonical) }
        }
    }
}

fn changed(from: &Variant, vt: u16) -> Result<Variant, Hresult> {
    let mut to = Variant(RawVariant::EMPTY);
    // SAFETY: both are VARIANTs of ours.
    let result = unsafe {
        VariantChangeTypeEx((&raw mut to.0).cast(), (&raw const from.0).cast(), LOCALE, VARIANT_ALPHABOOL, vt)
    };
    if result < 0 { Err(result) } else { Ok(to) }
}

/// A SAFEARRAY of elements of the type `vt`, each brought to it.
fn built(vt: u16, dimensions: &[u32], elements: &Elements) -> Result<Variant, Hresult> {
    let bounds: Vec<SAFEARRAYBOUND> =
        dimensions.iter().map(|&length| SAFEARRAYBOUND { cElements: length, lLbound: 0 }).collect();
    let count = dimensions.iter().try_fold(1_usize, |count, &length| count.checked_mul(length as usize));
    if dimensions.is_empty() || count != Some(elements.len()) || size_of_element(vt).is_none() {
        return Err(DISP_E_TYPEMISMATCH);
    }
    // SAFETY: as many bounds as are said.
    let array = unsafe { SafeArrayCreate(vt, bounds.len() as u32, bounds.as_ptr()) };
    if array.is_null() {
        return Err(E_OUTOFMEMORY);
    }
    let mut whole = Variant(RawVariant::EMPTY);
    whole.0.vt = VT_ARRAY | vt;
    whole.0.data[0] = array as usize as u64;
    let mut at = vec![0_i32; dimensions.len()];
    for index in 0..elements.len() {
        let element = variant(&elements.get(index), vt)?;
        // A text is put by its pointer, a VARIANT and a DECIMAL as a whole, all else by its value's place.
        let place: *const c_void = match vt {
            VT_BSTR => element.0.pointer(),
            VT_VARIANT | VT_DECIMAL => (&raw const element.0).cast(),
            _ => element.0.data.as_ptr().cast(),
        };
        // SAFETY: as many indices as dimensions, each below its length; what is put is copied.
        let result = unsafe { SafeArrayPutElement(array, at.as_ptr(), place) };
        if result < 0 {
            return Err(result);
        }
        for (at, &length) in at.iter_mut().zip(dimensions).rev() {
            *at += 1;
            if *at < length as i32 {
                break;
            }
            *at = 0;
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(value: &DaValue) -> DaValue {
        let variant = variant(value, VT_EMPTY).unwrap();
        // SAFETY: just made.
        unsafe { super::value(&variant.0) }
    }

    fn as_type(value: DaValue, vt: u16) -> Result<DaValue, Hresult> {
        // SAFETY: just made.
        variant(&value, vt).map(|variant| unsafe { super::value(&variant.0) })
    }

    #[test]
    fn scalars_go_there_and_back() {
        let all = [
            DaValue::Empty,
            DaValue::Null,
            DaValue::Bool(true),
            DaValue::Bool(false),
            DaValue::I1(i8::MIN),
            DaValue::U1(u8::MAX),
            DaValue::I2(i16::MIN),
            DaValue::U2(u16::MAX),
            DaValue::I4(i32::MIN),
            DaValue::U4(u32::MAX),
            DaValue::I8(i64::MIN),
            DaValue::U8(u64::MAX),
            DaValue::R4(-1.5),
            DaValue::R8(1e300),
            DaValue::Cy(-12_345),
            DaValue::Date(45_000.25),
            DaValue::Text("Grüße \u{1F600}\0!".into()),
            DaValue::Text(String::new()),
            DaValue::Error(-5),
            DaValue::Decimal(-1234.5),
        ];
        for value in all {
            assert_eq!(back(&value), value);
        }
    }

    #[test]
    fn arrays_go_there_and_back() {
        let all = [
            Elements::Bool(vec![true, false, true, true, false, false]),
            Elements::I1(vec![-1, 2, 3, 4, 5, 6]),
            Elements::U1(vec![1, 2, 3, 4, 5, 255]),
            Elements::I2(vec![-1, 2, 3, 4, 5, 6]),
            Elements::U2(vec![1, 2, 3, 4, 5, 65_535]),
            Elements::I4(vec![-1, 2, 3, 4, 5, 6]),
            Elements::U4(vec![1, 2, 3, 4, 5, u32::MAX]),
            Elements::I8(vec![-1, 2, 3, 4, 5, i64::MAX]),
            Elements::U8(vec![1, 2, 3, 4, 5, u64::MAX]),
            Elements::R4(vec![0.5, 2.0, 3.0, 4.0, 5.0, 6.0]),
            Elements::R8(vec![0.5, 2.0, 3.0, 4.0, 5.0, 6.0]),
            Elements::Cy(vec![1, 2, 3, 4, 5, -6]),
            Elements::Date(vec![0.5, 2.0, 3.0, 4.0, 5.0, 6.0]),
            Elements::Text(["a", "", "ü", "d", "e", "f"].map(String::from).to_vec()),
            Elements::Error(vec![-1, 2, 3, 4, 5, 6]),
            Elements::Variant(vec![
                DaValue::I2(1),
                DaValue::Text("x".into()),
                DaValue::Empty,
                DaValue::R8(0.5),
                DaValue::Bool(true),
                DaValue::Array { dimensions: vec![2], elements: Elements::I4(vec![1, 2]) },
            ]),
        ];
        for elements in all {
            for dimensions in [vec![6], vec![2, 3], vec![1, 3, 2]] {
                let value = DaValue::Array { dimensions, elements: elements.clone() };
                assert_eq!(back(&value), value);
            }
        }
        let empty = DaValue::Array { dimensions: vec![0], elements: Elements::I4(Vec::new()) };
        assert_eq!(back(&empty), empty);
    }

    #[test]
    fn values_are_brought_to_the_type_that_is_wanted() {
        assert_eq!(as_type(DaValue::Text("12.5".into()), VT_R4), Ok(DaValue::R4(12.5)));
        assert_eq!(as_type(DaValue::I4(7), VT_BSTR), Ok(DaValue::Text("7".into())));
        assert_eq!(as_type(DaValue::R8(3.0), VT_CY), Ok(DaValue::Cy(30_000)));
        assert_eq!(as_type(DaValue::U1(1), VT_BOOL), Ok(DaValue::Bool(true)));
        let numbers = |elements| DaValue::Array { dimensions: vec![2], elements };
        let doubles = numbers(Elements::R8(vec![1.0, 2.0]));
        assert_eq!(as_type(doubles.clone(), VT_ARRAY | VT_I2), Ok(numbers(Elements::I2(vec![1, 2]))));
        assert_eq!(as_type(DaValue::I4(70_000), VT_I2), Err(0x8002_000A_u32 as Hresult));
        assert_eq!(as_type(DaValue::Text("x".into()), VT_I2), Err(DISP_E_TYPEMISMATCH));
        assert_eq!(as_type(doubles, VT_R8), Err(DISP_E_TYPEMISMATCH));
        assert_eq!(as_type(DaValue::I4(1), VT_ARRAY | VT_I4), Err(DISP_E_TYPEMISMATCH));
    }

    #[test]
    fn arrays_in_arrays_have_an_end() {
        let around = |value| DaValue::Array { dimensions: vec![1], elements: Elements::Variant(vec![value]) };
        let nested = |depth| (0..depth).fold(DaValue::I4(1), |value, _| around(value));
        assert_eq!(back(&nested(8)), nested(8));
        let cut = (0..8).fold(DaValue::Unsupported(VT_ARRAY | VT_VARIANT), |value, _| around(value));
        assert_eq!(back(&nested(20)), cut);
    }

    #[test]
    fn the_last_dimension_is_fastest() {
        assert_eq!(order(&[2, 3]).unwrap(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(order(&[3]).unwrap(), [0, 1, 2]);
        assert_eq!(order(&[u32::MAX, u32::MAX, u32::MAX]), None);
    }
}
