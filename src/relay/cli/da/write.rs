//! `vedette-da-relay write`: a value, typed in, as the item wants it.
//!
//! Which type that is, the server knows; Windows makes the text into it, with a point in numbers whatever the settings are.

use super::Target;
use super::output::{Failed, line, own_words, refuse_as};
use crate::relay::com::Io;
use crate::relay::hresults;
use crate::relay::protocol::{DaValue, Elements};
use serde_json::{Value as Json, json};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The ItemID.
    #[arg(value_name = "ITEM")]
    item: String,
    /// The value: 12.5, true, a text, 2026-11-21 14:30:00, and JSON for arrays, [1, 2, 3].
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,
    /// It is a text, also if it begins with a bracket.
    #[arg(long)]
    text: bool,
    /// For scripts: one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let value = match arguments.value.trim_start().starts_with('[') && !arguments.text {
        true => array(&arguments.value).map_err(Failed::Wrong)?,
        false => DaValue::Text(arguments.value.clone()),
    };
    let connection = arguments.target.open()?;
    let written = [(arguments.item.clone(), value)];
    let result = Io::default().write(&connection, &written)?.pop().unwrap_or_default();
    let (item, shown) = (&arguments.item, &arguments.value);
    match (result, arguments.json) {
        (..0, is_json) => {
            refuse_as(item, result, own_words(&connection, result).as_deref(), is_json)?;
            Err(Failed::Said)
        }
        (_, true) => line(&json!({ "item": item, "result": hresults::name(result) }).to_string()),
        (0, false) => line(&format!("{item} = {shown}  written")),
        (_, false) => line(&format!("{item} = {shown}  {}", hresults::explained(result))),
    }
}

/// Elements as texts: the item's type is not known here.
fn array(text: &str) -> Result<DaValue, String> {
    let wrong = |what: String| format!("{what}; an array is written as [1, 2, 3] or [[1, 2], [3, 4]]");
    let parsed: Json = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let mut dimensions = Vec::new();
    let mut inner = Some(&parsed);
    while let Some(Json::Array(row)) = inner {
        dimensions.push(row.len() as u32);
        inner = row.first();
    }
    let mut elements = Vec::new();
    flatten(&parsed, &dimensions, &mut elements).map_err(wrong)?;
    Ok(DaValue::Array { dimensions, elements: Elements::Variant(elements) })
}

fn flatten(value: &Json, dimensions: &[u32], elements: &mut Vec<DaValue>) -> Result<(), String> {
    match (value, dimensions.split_first()) {
        (Json::Array(row), Some((&length, inner))) if row.len() == length as usize => {
            row.iter().try_for_each(|value| flatten(value, inner, elements))
        }
        (Json::Array(_), _) | (_, Some(_)) => Err("rows are of one length and one depth".into()),
        (Json::String(text), None) => {
            elements.push(DaValue::Text(text.clone()));
            Ok(())
        }
        (Json::Bool(value), None) => {
            elements.push(DaValue::Bool(*value));
            Ok(())
        }
        (Json::Number(number), None) => {
            elements.push(DaValue::Text(number.to_string()));
            Ok(())
        }
        (other, None) => Err(format!("{other} is no element of an array")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read() {
        let text = |text: &str| DaValue::Text(text.into());
        let elements = Elements::Variant(vec![text("1"), text("2.5"), text("x"), DaValue::Bool(true)]);
        assert_eq!(array("[[1, 2.5], [\"x\", true]]"), Ok(DaValue::Array { dimensions: vec![2, 2], elements }));
        assert!(array("[[1], [2, 3]]").is_err() && array("[1, [2]]").is_err() && array("[1").is_err());
        assert!(array("[null]").is_err());
    }
}
