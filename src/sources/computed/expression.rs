//! An expression over tags: what may be written, and the tree that is made of it.
//!
//!     text ──names──► text with numbers in place of {tags} ──evalexpr──► its tree ──compile──► Part
//!
//! evalexpr parses, and only that. What an operator means is said in `evaluate.rs`, because evalexpr divides whole numbers
//! without a rest, takes 1/0 for a value and evaluates both branches of an `if`. Loops, assignments and functions that
//! are not listed here do not become a [`Part`]. The text is bounded, and with it everything that is made of it.

use super::names::{TAG, names};
use crate::model::{DataType, TagName, TagNameError};
use evalexpr::{EvalexprError, Node, Operator, build_operator_tree};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Bytes. Parsing takes stack in proportion.
const LONGEST: usize = 1000;
const DEEPEST: usize = 250;
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpressionError {
    #[error("it is longer than {LONGEST} bytes; make tags of its parts")]
    TooLong,
    #[error("it is nested deeper than {DEEPEST}; make tags of its parts")]
    TooDeep,
    #[error("it is empty; write it as in \"{{demo/sine}} * 2\"")]
    Empty,
    #[error("`{{` without `}}`: a tag is written as in {{demo/sine}}, and a `}}` within its name twice")]
    Open,
    #[error("`}}` without `{{`: a tag is written as in {{demo/sine}}, and a `}}` within its name twice")]
    Close,
    #[error("a text is not closed by \"")]
    OpenText,
    #[error("there are no comments in expressions; put it behind a # after the closing quotes")]
    Comment,
    #[error("it has the control character {0:?}")]
    Control(char),
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error("{0:?} is no constant; write a tag as in {{demo/sine}}, a text in quotes, as in \"on\"")]
    NoConstant(String),
    #[error("there is no function {0:?}; there are {1}")]
    NoFunction(String, String),
    #[error("{0} takes {1}, not {2}")]
    Arguments(String, String, usize),
    #[error("good takes a tag, as in good({{demo/sine}})")]
    GoodOfNoTag,
    #[error("{0} does not belong into an expression; compare with ==")]
    Unsuitable(&'static str),
    #[error(
        "two values without an operator between them; put an operator there, as in {{demo/sine}} * 2 (`!` stands before its value)"
    )]
    Neighbours,
    #[error("something is missing before or after {0}")]
    Missing(String),
    #[error("it cannot be understood: {0}")]
    Syntax(String),
}

#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub(super) root: Part,
    /// In the order of their first use; each once.
    pub(super) inputs: Vec<TagName>,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Number(f64),
    Truth(bool),
    Text(Arc<str>),
    /// By its place among the inputs.
    Tag(usize),
    /// Whether that tag is not bad.
    Good(usize),
    Negative(Box<Part>),
    Not(Box<Part>),
    Binary(Binary, Box<[Part; 2]>),
    If(Box<[Part; 3]>),
    Call(Function, Vec<Part>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    And,
    Or,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    One(fn(f64) -> f64),
    Two(fn(f64, f64) -> f64),
    /// Of any number of values, two by two.
    Fold(fn(f64, f64) -> f64),
    /// A value, the least and the most that it may be.
    Clamp,
    /// A bit of a whole number, 0 for the lowest.
    Bit,
    /// A value as text.
    Text,
}

const FUNCTIONS: &[(&str, Function)] = &[
    ("abs", Function::One(f64::abs)),
    ("sign", Function::One(sign)),
    ("sqrt", Function::One(f64::sqrt)),
    ("exp", Function::One(f64::exp)),
    ("ln", Function::One(f64::ln)),
    ("log10", Function::One(f64::log10)),
    ("sin", Function::One(f64::sin)),
    ("cos", Function::One(f64::cos)),
    ("tan", Function::One(f64::tan)),
    ("asin", Function::One(f64::asin)),
    ("acos", Function::One(f64::acos)),
    ("atan", Function::One(f64::atan)),
    ("atan2", Function::Two(f64::atan2)),
    ("floor", Function::One(f64::floor)),
    ("ceil", Function::One(f64::ceil)),
    ("round", Function::One(f64::round)),
    ("trunc", Function::One(f64::trunc)),
    ("min", Function::Fold(f64::min)),
    ("max", Function::Fold(f64::max)),
    ("clamp", Function::Clamp),
    ("bit", Function::Bit),
    ("text", Function::Text),
];

/// Of zero it is zero, other than [`f64::signum`].
fn sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

impl Function {
    fn arguments(self) -> RangeInclusive<usize> {
        match self {
            Function::One(_) | Function::Text => 1..=1,
            Function::Two(_) | Function::Bit => 2..=2,
            Function::Clamp => 3..=3,
            Function::Fold(_) => 1..=LONGEST,
        }
    }
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > LONGEST {
            return Err(ExpressionError::TooLong);
        }
        let (text, inputs) = names(text)?;
        let tree = build_operator_tree(&text).map_err(|error| match error {
            EvalexprError::AppendedToLeafNode | EvalexprError::MissingOperatorOutsideOfBrace => {
                ExpressionError::Neighbours
            }
            other => ExpressionError::Syntax(other.to_string()),
        })?;
        Ok(Self { root: compile(&tree, 0)?, inputs })
    }

    /// The type that it gives, as far as that does not depend on the tags.
    pub(super) fn data_type(&self) -> Option<DataType> {
        self.root.data_type()
    }
}

impl Part {
    fn data_type(&self) -> Option<DataType> {
        use Binary::{Add, Divide, Multiply, Power, Remainder, Subtract};
        match self {
            Part::Tag(_) => None,
            Part::Number(_) | Part::Negative(_) => Some(DataType::Double),
            Part::Text(_) | Part::Call(Function::Text, _) => Some(DataType::String),
            Part::Truth(_) | Part::Good(_) | Part::Not(_) | Part::Call(Function::Bit, _) => Some(DataType::Boolean),
            Part::Call(..) | Part::Binary(Subtract | Multiply | Divide | Remainder | Power, _) => {
                Some(DataType::Double)
            }
            Part::Binary(Add, sides) => sides.iter().find_map(Part::data_type),
            Part::Binary(..) => Some(DataType::Boolean),
            Part::If(parts) => parts[1..].iter().find_map(Part::data_type),
        }
    }
}

fn compile(node: &Node, depth: usize) -> Result<Part, ExpressionError> {
    if depth > DEEPEST {
        return Err(ExpressionError::TooDeep);
    }
    let children = node.children();
    let part = |node: &Node| compile(node, depth + 1);
    let binary = |operator| match children {
        [left, right] => Ok(Part::Binary(operator, Box::new([part(left)?, part(right)?]))),
        _ => Err(ExpressionError::Missing(node.operator().to_string().trim().to_owned())),
    };
    let unary = || match children {
        [child] => Ok(Box::new(part(child)?)),
        _ => Err(ExpressionError::Missing(node.operator().to_string().trim().to_owned())),
    };
    match node.operator() {
        Operator::RootNode => match children {
            [child] => part(child),
            _ => Err(ExpressionError::Empty),
        },
        Operator::Add => binary(Binary::Add),
        Operator::Sub => binary(Binary::Subtract),
        Operator::Mul => binary(Binary::Multiply),
        Operator::Div => binary(Binary::Divide),
        Operator::Mod => binary(Binary::Remainder),
        Operator::Exp => binary(Binary::Power),
        Operator::Eq => binary(Binary::Equal),
        Operator::Neq => binary(Binary::Unequal),
        Operator::Lt => binary(Binary::Less),
        Operator::Leq => binary(Binary::LessOrEqual),
        Operator::Gt => binary(Binary::More),
        Operator::Geq => binary(Binary::MoreOrEqual),
        Operator::And => binary(Binary::And),
        Operator::Or => binary(Binary::Or),
        Operator::Neg => Ok(Part::Negative(unary()?)),
        Operator::Not => Ok(Part::Not(unary()?)),
        Operator::Const { value } => constant(value),
        Operator::VariableIdentifierRead { identifier } => variable(identifier),
        Operator::FunctionIdentifier { identifier } => {
            let arguments = match children {
                [child] => arguments(child),
                _ => &[],
            };
            call(identifier, arguments, depth)
        }
        Operator::Tuple => Err(ExpressionError::Unsuitable("a list of values, as in (1, 2),")),
        Operator::Chain => Err(ExpressionError::Unsuitable("`;`")),
        _ => Err(ExpressionError::Unsuitable("an assignment")),
    }
}

fn constant(value: &evalexpr::Value) -> Result<Part, ExpressionError> {
    match value {
        evalexpr::Value::Int(value) => Ok(Part::Number(*value as f64)),
        evalexpr::Value::Float(value) => Ok(Part::Number(*value)),
        evalexpr::Value::Boolean(value) => Ok(Part::Truth(*value)),
        evalexpr::Value::String(value) => Ok(Part::Text(value.as_str().into())),
        evalexpr::Value::Tuple(_) | evalexpr::Value::Empty => Err(ExpressionError::Empty),
    }
}

fn variable(identifier: &str) -> Result<Part, ExpressionError> {
    if let Some(place) = identifier.strip_prefix(TAG).and_then(|place| place.parse().ok()) {
        return Ok(Part::Tag(place));
    }
    match identifier {
        "pi" => Ok(Part::Number(std::f64::consts::PI)),
        other => Err(ExpressionError::NoConstant(other.to_owned())),
    }
}

/// Within the parentheses of a call, with one argument or with several.
fn arguments(mut node: &Node) -> &[Node] {
    while let (Operator::RootNode, [child]) = (node.operator(), node.children()) {
        node = child;
    }
    match node.operator() {
        Operator::Tuple => node.children(),
        Operator::RootNode => &[],
        _ => std::slice::from_ref(node),
    }
}

fn call(name: &str, arguments: &[Node], depth: usize) -> Result<Part, ExpressionError> {
    let found = arguments.len();
    let parts: Vec<Part> = arguments.iter().map(|node| compile(node, depth + 1)).collect::<Result<_, _>>()?;
    if name.starts_with(TAG) {
        return Err(ExpressionError::Neighbours);
    }
    let wrong = |wanted: String| Err(ExpressionError::Arguments(name.to_owned(), wanted, found));
    match name {
        "if" => match <[Part; 3]>::try_from(parts) {
            Ok(parts) => Ok(Part::If(Box::new(parts))),
            Err(_) => wrong("a condition, what if it holds, and what if not".into()),
        },
        "good" => match parts[..] {
            [Part::Tag(place)] => Ok(Part::Good(place)),
            _ => Err(ExpressionError::GoodOfNoTag),
        },
        _ => {
            let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
                let known: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
                return Err(ExpressionError::NoFunction(name.to_owned(), known.join(", ") + ", if and good"));
            };
            match function.arguments() {
                wanted if wanted.contains(&found) => Ok(Part::Call(*function, parts)),
                wanted if *wanted.end() == LONGEST => wrong("one value or more".into()),
                wanted if *wanted.end() == 1 => wrong("one value".into()),
                wanted => wrong(format!("{} values", wanted.end())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(text: &str) -> String {
        Expression::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("", "is empty"),
            ("()", "is empty"),
            ("{a", "`{` without `}`"),
            ("a}", "`}` without `{`"),
            ("{a//b}", "empty segment"),
            ("demo/sine", "\"demo\" is no constant; write a tag as in {demo/sine}"),
            ("demo/sine(1)", "\"demo\" is no constant"),
            ("sine(1)", "there is no function \"sine\"; there are abs,"),
            ("max()", "max takes one value or more, not 0"),
            ("atan2({a})", "atan2 takes 2 values, not 1"),
            ("if({a}, 1)", "if takes a condition"),
            ("good(1)", "good takes a tag"),
            ("{a} = 1", "an assignment does not belong"),
            ("a = 1", "an assignment does not belong"),
            ("1; 2", "`;` does not belong"),
            ("(1, 2) + 1", "a list of values"),
            ("1 +", "something is missing"),
            ("{a} {b}", "put an operator there"),
            ("{a} == on", "\"on\" is no constant; write a tag as in {demo/sine}, a text in quotes, as in \"on\""),
            ("2{a}", "put an operator there"),
            ("1 2", "put an operator there"),
            ("{a}!", "`!` stands before its value"),
            ("2(3)", "put an operator there"),
            ("(1", "cannot be understood"),
            ("\"a", "not closed"),
            ("1 // 2", "no comments"),
            ("1 \u{1}0", "control character"),
            ("\"\u{1}\"", "control character"),
        ] {
            let said = said(text);
            assert!(said.contains(words), "{text:?}: {said}");
        }
    }

    #[test]
    fn the_type_is_inferred() {
        let data_type = |text| Expression::parse(text).unwrap().data_type();
        assert_eq!(data_type("{a} * 2"), Some(DataType::Double));
        assert_eq!(data_type("{a} > 2 && good({b})"), Some(DataType::Boolean));
        assert_eq!(data_type("if({a}, {b}, \"off\")"), Some(DataType::String));
        assert_eq!(data_type("{a} + \" bar\""), Some(DataType::String));
        assert_eq!(data_type("{a}"), None);
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert_eq!(Expression::parse(&"1".repeat(1001)).unwrap_err(), ExpressionError::TooLong);
        for text in ["(".repeat(500) + "1" + &")".repeat(499), "-".repeat(999) + "1", "!".repeat(999) + "1"] {
            assert!(Expression::parse(&text).is_err());
        }
        let text = "-".repeat(300) + "1";
        assert_eq!(Expression::parse(&text).unwrap_err(), ExpressionError::TooDeep);
        assert!(Expression::parse(&("1+".repeat(200) + "1")).is_ok());
    }

    proptest! {
        /// Of what tokens there are, in any order: an answer, without a panic, and every tag is one of the inputs.
        #[test]
        fn nothing_that_is_written_breaks_it(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "{a}", "{b/c d}", "{", "}", "\"", "\\", "(", ")", ",", ";", "=", "==", "!", "&&", "|", "+", "-", "*", "/",
                "%", "^", "<", ">", "1", "0x1f", "1e", "2.5", "true", "if", "max", "good", "x", " ", "\n", "é", "\u{1}0",
            ]), 0..60),
            other in any::<String>(),
        ) {
            for text in [tokens.concat(), other] {
                if let Ok(expression) = Expression::parse(&text) {
                    places(&expression.root, expression.inputs.len());
                }
            }
        }
    }

    fn places(part: &Part, inputs: usize) {
        match part {
            Part::Tag(place) | Part::Good(place) => assert!(*place < inputs),
            Part::Negative(part) | Part::Not(part) => places(part, inputs),
            Part::Binary(_, parts) => parts.iter().for_each(|part| places(part, inputs)),
            Part::If(parts) => parts.iter().for_each(|part| places(part, inputs)),
            Part::Call(_, parts) => parts.iter().for_each(|part| places(part, inputs)),
            Part::Number(_) | Part::Truth(_) | Part::Text(_) => {}
        }
    }
}
