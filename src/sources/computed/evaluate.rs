//! The value of an expression, and how good it is.
//!
//! Only what is needed is looked at: of an `if` the one branch, of `&&` and `||` the second side only when the first does
//! not decide. So the quality is the worst of the tags that were used, and the time that of the newest of them. What
//! is no number (a division by zero, the root of -1) is Bad where it arises, so that no comparison hides it.

use super::expression::{Binary, Expression, Function, Part};
use crate::model::{DataType, Quality, Sample, Status, TagName, Timestamp, Value};
use std::sync::Arc;

/// Bytes of a text that is put together.
const LONGEST_TEXT: usize = 65_536;

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Number(f64),
    Truth(bool),
    Text(Arc<str>),
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Good or uncertain with a value, or bad.
    pub(super) value: Result<Value, Quality>,
    pub(super) quality: Quality,
    /// Of the newest tag that was used, if any.
    pub(super) time: Option<Timestamp>,
}

/// `samples` are those of the inputs, as far as these exist.
pub(super) fn evaluate(expression: &Expression, samples: &[Option<Sample>], data_type: DataType) -> Outcome {
    let mut look = Look { names: &expression.inputs, samples, quality: Quality::GOOD, time: None };
    let value = look.value(&expression.root).and_then(|operand| typed(operand, data_type));
    let quality = value.as_ref().err().cloned().unwrap_or(look.quality);
    Outcome { value, quality, time: look.time }
}

/// What has been looked at so far.
struct Look<'a> {
    names: &'a [TagName],
    samples: &'a [Option<Sample>],
    quality: Quality,
    time: Option<Timestamp>,
}

impl Look<'_> {
    fn value(&mut self, part: &Part) -> Result<Operand, Quality> {
        Ok(match part {
            Part::Number(value) => Operand::Number(*value),
            Part::Truth(value) => Operand::Truth(*value),
            Part::Text(value) => Operand::Text(value.clone()),
            Part::Tag(place) => self.tag(*place)?,
            Part::Good(place) => {
                let sample = self.sample(*place);
                Operand::Truth(sample.is_ok_and(|sample| !sample.quality.is_bad()))
            }
            Part::Negative(part) => Operand::Number(-self.number(part)?),
            Part::Not(part) => Operand::Truth(!self.truth(part)?),
            Part::Binary(Binary::And, sides) => Operand::Truth(self.truth(&sides[0])? && self.truth(&sides[1])?),
            Part::Binary(Binary::Or, sides) => Operand::Truth(self.truth(&sides[0])? || self.truth(&sides[1])?),
            Part::Binary(operator, sides) => {
                let (left, right) = (self.value(&sides[0])?, self.value(&sides[1])?);
                binary(*operator, left, right)?
            }
            Part::If(parts) => {
                let [condition, yes, no] = &**parts;
                if self.truth(condition)? { self.value(yes)? } else { self.value(no)? }
            }
            Part::Call(function, arguments) => self.call(*function, arguments)?,
        })
    }

    fn sample(&mut self, place: usize) -> Result<&Sample, Quality> {
        let Some(sample) = &self.samples[place] else {
            let reason = format!("there is no tag {} (yet)", self.names[place]);
            return Err(Quality::new(Status::BAD_NODE_ID_UNKNOWN, reason));
        };
        self.time = self.time.max(Some(sample.source_time.unwrap_or(sample.server_time)));
        Ok(sample)
    }

    fn tag(&mut self, place: usize) -> Result<Operand, Quality> {
        let name = self.names[place].clone();
        let Sample { value, quality, .. } = self.sample(place)?.clone();
        let of_tag = |quality: &Quality| Quality::new(quality.status, format!("{name}: {quality}"));
        if quality.is_bad() {
            return Err(of_tag(&quality));
        }
        if !quality.is_good() && self.quality.is_good() {
            self.quality = of_tag(&quality);
        }
        let unsuitable = |what: String| {
            let reason = format!("{name} is {what}; an expression takes a number, a Boolean or a text");
            Quality::new(Status::BAD_TYPE_MISMATCH, reason)
        };
        match &value {
            Value::Boolean(value) => Ok(Operand::Truth(*value)),
            Value::String(Some(text)) => Ok(Operand::Text(text.clone())),
            Value::LocalizedText(text) => Ok(Operand::Text(text.text.clone().unwrap_or_default())),
            Value::Array(_) => Err(unsuitable("an array".into())),
            other => match (other.as_f64(), other.data_type()) {
                (Some(number), _) => finite(number, || format!("{name} is not a number")).map(Operand::Number),
                (None, Some(data_type)) => Err(unsuitable(data_type.to_string())),
                (None, None) => Err(unsuitable("empty".into())),
            },
        }
    }

    fn number(&mut self, part: &Part) -> Result<f64, Quality> {
        match self.value(part)? {
            Operand::Number(value) => Ok(value),
            other => Err(mismatch("a number", &other)),
        }
    }

    fn truth(&mut self, part: &Part) -> Result<bool, Quality> {
        match self.value(part)? {
            Operand::Truth(value) => Ok(value),
            other => Err(mismatch("a Boolean", &other)),
        }
    }

    fn call(&mut self, function: Function, arguments: &[Part]) -> Result<Operand, Quality> {
        if let (Function::Text, [part]) = (function, arguments) {
            return Ok(Operand::Text(self.value(part)?.text()));
        }
        let numbers: Vec<f64> = arguments.iter().map(|part| self.number(part)).collect::<Result<_, _>>()?;
        let undefined = || "a function has no value for its argument".to_owned();
        let number = match (function, &numbers[..]) {
            (Function::One(of), [value]) => finite(of(*value), undefined)?,
            (Function::Two(of), [first, second]) => finite(of(*first, *second), undefined)?,
            (Function::Fold(of), [first, rest @ ..]) => rest.iter().fold(*first, |so_far, value| of(so_far, *value)),
            (Function::Clamp, [value, low, high]) if low <= high => value.clamp(*low, *high),
            (Function::Clamp, [_, low, high]) => return Err(out_of_range(format!("clamp from {low} to {high}"))),
            (Function::Bit, [value, bit]) => return Ok(Operand::Truth(is_set(*value, *bit)?)),
            _ => unreachable!("the number of arguments was checked"),
        };
        Ok(Operand::Number(number))
    }
}

impl Operand {
    fn text(self) -> Arc<str> {
        match self {
            Operand::Number(value) => value.to_string().into(),
            Operand::Truth(value) => value.to_string().into(),
            Operand::Text(value) => value,
        }
    }
}

fn binary(operator: Binary, left: Operand, right: Operand) -> Result<Operand, Quality> {
    use Operand::{Number, Text, Truth};
    let overflow = || "the result is too large for a number".to_owned();
    Ok(match (operator, left, right) {
        (Binary::Add, Number(a), Number(b)) => Number(finite(a + b, overflow)?),
        (Binary::Add, Text(a), Text(b)) if a.len() + b.len() <= LONGEST_TEXT => Text(format!("{a}{b}").into()),
        (Binary::Add, Text(_), Text(_)) => {
            return Err(out_of_range(format!("a text longer than {LONGEST_TEXT} bytes")));
        }
        (Binary::Subtract, Number(a), Number(b)) => Number(finite(a - b, overflow)?),
        (Binary::Multiply, Number(a), Number(b)) => Number(finite(a * b, overflow)?),
        (Binary::Divide | Binary::Remainder, Number(_), Number(0.0)) => {
            return Err(out_of_range("division by zero".into()));
        }
        (Binary::Divide, Number(a), Number(b)) => Number(finite(a / b, overflow)?),
        (Binary::Remainder, Number(a), Number(b)) => Number(a % b),
        (Binary::Power, Number(a), Number(b)) => Number(finite(a.powf(b), || format!("{a} ^ {b} has no value"))?),
        (Binary::Less, Number(a), Number(b)) => Truth(a < b),
        (Binary::LessOrEqual, Number(a), Number(b)) => Truth(a <= b),
        (Binary::More, Number(a), Number(b)) => Truth(a > b),
        (Binary::MoreOrEqual, Number(a), Number(b)) => Truth(a >= b),
        (Binary::Equal | Binary::Unequal, a, b) if std::mem::discriminant(&a) == std::mem::discriminant(&b) => {
            Truth((a == b) == (operator == Binary::Equal))
        }
        (_, Number(_), other) | (_, other, Number(_)) => return Err(mismatch("a number", &other)),
        (Binary::Add | Binary::Equal | Binary::Unequal, Text(_), other) => return Err(mismatch("a text", &other)),
        (_, other, _) => return Err(mismatch("a number", &other)),
    })
}

fn is_set(value: f64, bit: f64) -> Result<bool, Quality> {
    // Whole numbers are exact in a Double up to 2^53.
    let is_whole = |value: f64, most: f64| value.fract() == 0.0 && (0.0..=most).contains(&value);
    if !is_whole(value, 9_007_199_254_740_992.0) || !is_whole(bit, 52.0) {
        return Err(out_of_range(format!("bit({value}, {bit}): bits 0 to 52 of whole numbers that are not negative")));
    }
    Ok(value as u64 >> bit as u32 & 1 == 1)
}

fn finite(value: f64, what: impl FnOnce() -> String) -> Result<f64, Quality> {
    if value.is_finite() { Ok(value) } else { Err(out_of_range(what())) }
}

fn out_of_range(what: String) -> Quality {
    Quality::new(Status::BAD_OUT_OF_RANGE, what)
}

fn mismatch(wanted: &str, found: &Operand) -> Quality {
    let found = match found {
        Operand::Number(_) => "a number",
        Operand::Truth(_) => "a Boolean",
        Operand::Text(_) => "a text",
    };
    Quality::new(Status::BAD_TYPE_MISMATCH, format!("{found} where {wanted} belongs"))
}

/// As the tag's type wants it: whole numbers are rounded, a text is made of anything.
fn typed(operand: Operand, data_type: DataType) -> Result<Value, Quality> {
    match (data_type, operand) {
        (DataType::Double, Operand::Number(value)) => Ok(Value::Double(value)),
        (DataType::Boolean, Operand::Truth(value)) => Ok(Value::Boolean(value)),
        (DataType::String, operand) => Ok(Value::String(Some(operand.text()))),
        // 2^63 itself does not fit, and the next smaller Double is 1024 less.
        (DataType::Int64, Operand::Number(value)) if (-(2_f64.powi(63))..2_f64.powi(63)).contains(&value.round()) => {
            Ok(Value::Int64(value.round() as i64))
        }
        (DataType::Int64, Operand::Number(value)) => Err(out_of_range(format!("{value} is no Int64"))),
        (DataType::Boolean, other) => Err(mismatch("a Boolean", &other)),
        (_, other) => Err(mismatch("a number", &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Array, TagId};
    use proptest::prelude::*;

    fn sample(value: Value, quality: Quality, seconds: i64) -> Option<Sample> {
        let time = Timestamp::from_millis(seconds * 1000);
        Some(Sample { tag: TagId(0), value, quality, source_time: Some(time), server_time: time })
    }

    fn good(value: f64) -> Option<Sample> {
        sample(Value::Double(value), Quality::GOOD, 1)
    }

    /// With the samples of the tags a, b, c...
    fn outcome(text: &str, samples: &[Option<Sample>]) -> Outcome {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let data_type = expression.data_type().unwrap_or(DataType::Double);
        let sample = |name: &TagName| samples[usize::from(name.as_str().as_bytes()[0] - b'a')].clone();
        evaluate(&expression, &expression.inputs.iter().map(sample).collect::<Vec<_>>(), data_type)
    }

    #[test]
    fn values_are_what_people_expect() {
        let inputs = [good(5.0), good(2.0)];
        for (text, wanted) in [
            ("{a} / {b}", Value::Double(2.5)),
            ("5 / 2 + 1e1", Value::Double(12.5)),
            ("-{b} ^ 2", Value::Double(-4.0)),
            ("2 ^ 3 * 2 % 5", Value::Double(1.0)),
            ("2 ^ 3 ^ 2", Value::Double(64.0)),
            ("{a} - {b} - 1", Value::Double(2.0)),
            ("max({a}, max({b}, 9), 3) + min({a})", Value::Double(14.0)),
            ("clamp({a}, 0, 3)", Value::Double(3.0)),
            ("round(pi * 1000)", Value::Double(3142.0)),
            ("sign(0) + sign(-{a})", Value::Double(-1.0)),
            ("{a} > {b} && !({a} == 5)", Value::Boolean(false)),
            ("{a} != 5 || {b} <= 2", Value::Boolean(true)),
            ("bit({a}, 0) && !bit({a}, 1) && bit({a}, 2)", Value::Boolean(true)),
            ("if({a} >= 5, \"full\", \"empty\") + \"!\"", Value::string("full!")),
            ("text({a} + 0.5) + \" bar\"", Value::string("5.5 bar")),
            ("if({b} == 2, 1, {a} / 0)", Value::Double(1.0)),
        ] {
            assert_eq!(outcome(text, &inputs).value, Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_bad_with_the_reason() {
        let array = Array::new(DataType::Double, vec![Value::Double(1.0)], None).unwrap();
        let inputs = [good(1.0), good(0.0), sample(array.into(), Quality::GOOD, 1), good(f64::NAN)];
        for (text, words) in [
            ("{a} / {b} > 1", "BadOutOfRange: division by zero"),
            ("{a} % {b} > 1", "division by zero"),
            ("sqrt(-{a}) > 1", "no value"),
            ("ln({b}) > 1", "no value"),
            ("(-8) ^ 0.5 > 1", "no value"),
            ("1e300 * 1e300 > 1", "too large"),
            ("{c} > 1", "BadTypeMismatch: c is an array"),
            ("{d} > 1", "d is not a number"),
            ("{a} + true > 1", "a Boolean where a number belongs"),
            ("\"x\" > \"y\"", "a text where a number belongs"),
            ("{a} == \"x\"", "a text where a number belongs"),
            ("bit({a} / 2, 0)", "whole numbers"),
            ("clamp({a}, 2, 1) > 1", "clamp"),
            ("{a} || true", "a number where a Boolean belongs"),
        ] {
            let Err(quality) = outcome(text, &inputs).value else { panic!("{text}") };
            assert!(quality.to_string().contains(words), "{text}: {quality}");
        }
    }

    #[test]
    fn it_is_as_good_as_the_worst_that_was_used_and_as_new_as_the_newest() {
        let lost = Quality::new(Status::BAD_NOT_CONNECTED, "no route");
        let stale = Quality::from(Status::UNCERTAIN_LAST_USABLE_VALUE);
        let inputs = [
            sample(Value::Double(1.0), Quality::GOOD, 3),
            sample(Value::Int32(2), stale, 9),
            sample(Value::Double(3.0), lost, 7),
            None,
        ];
        let look = |text: &str| outcome(text, &inputs);
        let time = |seconds: i64| Some(Timestamp::from_millis(seconds * 1000));
        let fine = look("{a} + 1");
        assert_eq!((fine.value, fine.quality, fine.time), (Ok(Value::Double(2.0)), Quality::GOOD, time(3)));
        let stale = look("{a} + {b}");
        assert_eq!((stale.value, stale.time), (Ok(Value::Double(3.0)), time(9)));
        assert_eq!(stale.quality.to_string(), "UncertainLastUsableValue: b: UncertainLastUsableValue");
        let lost = look("{b} + {c}");
        assert_eq!(lost.quality.to_string(), "BadNotConnected: c: BadNotConnected: no route");
        assert_eq!(look("{a} + {d}").quality.to_string(), "BadNodeIdUnknown: there is no tag d (yet)");
        let fallback = look("if(good({c}) && good({d}), {c}, {a})");
        assert_eq!((fallback.value, fallback.quality), (Ok(Value::Double(1.0)), Quality::GOOD));
    }

    #[test]
    fn the_tag_has_the_type_that_it_was_given() {
        let typed = |text: &str, data_type| evaluate(&Expression::parse(text).unwrap(), &[], data_type).value;
        assert_eq!(typed("2.5", DataType::Int64), Ok(Value::Int64(3)));
        assert_eq!(typed("0-2.4", DataType::Int64), Ok(Value::Int64(-2)));
        assert!(typed("2 ^ 63", DataType::Int64).is_err() && typed("2 ^ 62", DataType::Int64).is_ok());
        assert_eq!(typed("1 < 2", DataType::String), Ok(Value::string("true")));
        assert!(typed("1 < 2", DataType::Double).is_err() && typed("1", DataType::Boolean).is_err());
    }

    proptest! {
        /// Arithmetic gives what the CPU gives, or Bad where that is no number.
        #[test]
        fn arithmetic_is_that_of_doubles(a in any::<f64>(), b in any::<f64>()) {
            let inputs = [good(a), good(b)];
            for (text, wanted) in [("{a} + {b}", a + b), ("{a} - {b}", a - b), ("{a} * {b}", a * b), ("{a} / {b}", a / b)] {
                let outcome = outcome(text, &inputs);
                match outcome.value {
                    Ok(value) => prop_assert_eq!(value, Value::Double(wanted)),
                    Err(_) => prop_assert!(!wanted.is_finite() || !a.is_finite() || !b.is_finite()),
                }
            }
        }

        /// The quality is never better than that of an input that decides the value.
        #[test]
        fn no_quality_is_made_better(a in any::<u32>(), b in any::<u32>()) {
            let of = |status| sample(Value::Double(1.0), Quality::from(Status(status)), 1);
            let found = outcome("{a} + {b}", &[of(a), of(b)]).quality.status.0 >> 30;
            let worst = (a >> 30).max(b >> 30);
            prop_assert_eq!(found.min(2), worst.min(2));
        }
    }
}
