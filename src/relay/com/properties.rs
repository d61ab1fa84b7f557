//! Properties of items: through `IOPCBrowse` for many at once, else through `IOPCItemProperties`, item by item.

use super::abi::*;
use super::connection::Connection;
use super::memory::{Out, text, wide_name};
use super::{E_NOINTERFACE, Failure, Hresult, check, variant};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{ITEMS_PER_CALL, Property};

type Answer = Result<Vec<Property>, Hresult>;

impl Connection {
    /// All, or those of `ids`. In the order of `items`.
    pub fn item_properties(&self, items: &[String], ids: Option<&[u32]>) -> Result<Vec<Answer>, Failure> {
        let missing = Failure { call: "QueryInterface IOPCItemProperties".into(), hresult: E_NOINTERFACE };
        let first = match &self.browse3 {
            Some(browse) => at_once(browse, items, ids),
            None => Err(missing),
        };
        match (first, &self.properties) {
            (Err(failure), Some(properties)) if !is_gone(failure.hresult) => {
                items.iter().map(|item| one(properties, item, ids)).collect()
            }
            (answer, _) => answer,
        }
    }
}

fn at_once(browse: &IOPCBrowse, items: &[String], ids: Option<&[u32]>) -> Result<Vec<Answer>, Failure> {
    let mut all = Vec::with_capacity(items.len());
    let ids = ids.unwrap_or_default();
    for chunk in items.chunks(ITEMS_PER_CALL) {
        let names: Vec<_> = chunk.iter().map(|name| wide_name(name)).collect();
        let pointers: Vec<*const u16> = names.iter().flatten().map(Vec::as_ptr).collect();
        let mut found = Out::<OPCITEMPROPERTIES>::new(pointers.len());
        // SAFETY: as many names and ids as are said; what comes back is ours.
        let result = unsafe {
            browse.GetProperties(
                pointers.len() as u32,
                pointers.as_ptr(),
                1,
                ids.len() as u32,
                ids.as_ptr(),
                found.slot(),
            )
        }
        .0;
        found.after(result);
        check("GetProperties", result)?;
        let mut each = found.as_slice().iter();
        for name in &names {
            let found = match name {
                Ok(_) => each.next(),
                Err(error) => {
                    all.push(Err(*error));
                    continue;
                }
            };
            all.push(match found {
                Some(properties) if properties.error >= 0 => {
                    // SAFETY: as many as the server says, in an [out] array of ours.
                    let list = unsafe { super::memory::slice(properties.properties, properties.count as usize) };
                    Ok(list.iter().map(property).collect())
                }
                Some(properties) => Err(properties.error),
                None => Err(super::E_POINTER),
            });
        }
    }
    Ok(all)
}

fn property(property: &OPCITEMPROPERTY) -> Property {
    // SAFETY: a text and a VARIANT of an [out] array of ours.
    let (description, value) = unsafe { (text(property.description), variant::value(&property.value)) };
    let value = if property.error < 0 { Err(property.error) } else { Ok(value) };
    Property { id: property.id, description, data_type: property.data_type, value }
}

/// Fails only if the server is lost.
fn one(properties: &IOPCItemProperties, item: &str, wanted: Option<&[u32]>) -> Result<Answer, Failure> {
    let name = match wide_name(item) {
        Ok(name) => name,
        Err(error) => return Ok(Err(error)),
    };
    let mut count = 0;
    let (mut ids, mut descriptions, mut types) = (Out::<u32>::new(0), Out::<Wide>::new(0), Out::<u16>::new(0));
    // SAFETY: a text with its zero; what comes back is ours.
    let result = unsafe {
        properties.QueryAvailableProperties(
            name.as_ptr(),
            &raw mut count,
            ids.slot(),
            descriptions.slot(),
            types.slot(),
        )
    }
    .0;
    ids.after(result);
    descriptions.after(result);
    types.after(result);
    if is_gone(result) {
        return Err(Failure { call: "QueryAvailableProperties".into(), hresult: result });
    }
    if result < 0 {
        return Ok(Err(result));
    }
    ids.set_count(count);
    descriptions.set_count(count);
    types.set_count(count);
    let known = ids.as_slice().iter().enumerate();
    let (places, asked): (Vec<usize>, Vec<u32>) =
        known.filter(|(_, id)| wanted.is_none_or(|wanted| wanted.contains(id))).map(|(place, &id)| (place, id)).unzip();
    if asked.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let (mut values, mut errors) = (Out::<RawVariant>::new(asked.len()), Out::<i32>::new(asked.len()));
    // SAFETY: as many ids as are said; what comes back is ours.
    let result = unsafe {
        properties.GetItemProperties(name.as_ptr(), asked.len() as u32, asked.as_ptr(), values.slot(), errors.slot())
    }
    .0;
    values.after(result);
    errors.after(result);
    if is_gone(result) {
        return Err(Failure { call: "GetItemProperties".into(), hresult: result });
    }
    let each = places.into_iter().zip(asked).enumerate().map(|(index, (place, id))| {
        let error = super::group::of_item(&errors, index, result);
        let value = match values.as_slice().get(index) {
            // SAFETY: part of an [out] array of ours.
            Some(value) if error >= 0 => Ok(unsafe { variant::value(value) }),
            _ => Err(if error < 0 { error } else { super::E_POINTER }),
        };
        // SAFETY: a text of an [out] array of ours, or null.
        let description = descriptions.as_slice().get(place).map(|&text| unsafe { super::memory::text(text) });
        Property {
            id,
            description: description.unwrap_or_default(),
            data_type: types.as_slice().get(place).copied().unwrap_or_default(),
            value,
        }
    });
    Ok(Ok(each.collect()))
}
