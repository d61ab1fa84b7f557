//! The names of tags within an expression: `{line 1/speed}`, with whatever a name may have in it.
//!
//! What the parser gets has a number in the place of each, so nothing of a name can be taken for an operator. Texts in
//! quotes are left alone, and what would make the parser see something else than is seen here (comments, control
//! characters) is refused.

use super::expression::ExpressionError;
use crate::model::TagName;

/// What stands before the number of a tag in what evalexpr gets. Nobody can write it: control characters are refused.
pub(super) const TAG: char = '\u{1}';

/// Puts a number in the place of each tag.
pub(super) fn names(text: &str) -> Result<(String, Vec<TagName>), ExpressionError> {
    let mut inputs: Vec<TagName> = Vec::new();
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' => {
                let name = TagName::new(name(&mut chars)?.trim())?;
                let place = inputs.iter().position(|known| *known == name).unwrap_or_else(|| {
                    inputs.push(name);
                    inputs.len() - 1
                });
                // Blanks, so that it does not grow together with what stands next to it.
                plain.push_str(&format!(" {TAG}{place} "));
            }
            '}' => return Err(ExpressionError::Close),
            '"' => quoted(&mut chars, &mut plain)?,
            '/' if matches!(chars.peek(), Some('/' | '*')) => return Err(ExpressionError::Comment),
            '\n' | '\r' | '\t' => plain.push(' '),
            c if c.is_control() => return Err(ExpressionError::Control(c)),
            c => plain.push(c),
        }
    }
    Ok((plain, inputs))
}

/// What stands before the closing brace. A brace that is part of the name is written twice.
fn name(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, ExpressionError> {
    let mut name = String::new();
    loop {
        match chars.next().ok_or(ExpressionError::Open)? {
            '}' if chars.peek() == Some(&'}') => name.extend(chars.next()),
            '}' => return Ok(name),
            c => name.push(c),
        }
    }
}

/// A text as it is, with its quotes.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, plain: &mut String) -> Result<(), ExpressionError> {
    plain.push('"');
    loop {
        let c = chars.next().ok_or(ExpressionError::OpenText)?;
        if c.is_control() {
            return Err(ExpressionError::Control(c));
        }
        plain.push(c);
        match c {
            '"' => return Ok(()),
            '\\' => plain.push(chars.next().ok_or(ExpressionError::OpenText)?),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expression::Expression;
    use super::*;
    use proptest::prelude::*;

    fn names_of(text: &str) -> Vec<String> {
        Expression::parse(text).unwrap().inputs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tags_are_found_whatever_they_are_called() {
        assert_eq!(names_of("{line 1/speed} * 2 + {a.b-c/d}/{line 1/speed}"), ["line 1/speed", "a.b-c/d"]);
        assert_eq!(names_of("{odd}}name}-{ x }"), ["odd}name", "x"]);
        assert_eq!(names_of(r#""{no tag} \" {neither}" == {yes}"#), ["yes"]);
        assert_eq!(names_of("if({a} > 1,\n\t{b}, 2)"), ["a", "b"]);
    }

    proptest! {
        /// Whatever a tag may be called, it can be written, and it is nothing else.
        #[test]
        fn every_name_can_be_written(names in prop::collection::vec("[^/\\p{Cc}]{1,12}(/[^/\\p{Cc}]{1,12}){0,3}", 1..4)) {
            let names: Vec<TagName> = names.iter().filter_map(|name| TagName::new(name).ok()).collect();
            let text: Vec<String> = names.iter().map(|name| format!("{{{}}}", name.as_str().replace('}', "}}"))).collect();
            prop_assume!(!names.is_empty() && text.join("+").len() <= 1000);
            let mut wanted: Vec<TagName> = Vec::new();
            for name in names {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
            prop_assert_eq!(Expression::parse(&text.join("+")).unwrap().inputs, wanted);
        }
    }
}
