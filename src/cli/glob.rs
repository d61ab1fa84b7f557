//! Patterns with `*` and `?`, as a shell has them, upper and lower case alike.

use crate::base::selection::is_like;

/// `*Temp*`, `Line ?`: the whole text has to fit.
#[derive(Clone, Debug)]
pub(super) struct Glob(String);

impl std::str::FromStr for Glob {
    type Err = std::convert::Infallible;

    fn from_str(pattern: &str) -> Result<Self, Self::Err> {
        Ok(Self(pattern.to_lowercase()))
    }
}

impl Glob {
    pub(super) fn fits(&self, text: &str) -> bool {
        is_like(&self.0, &text.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        pattern.parse::<Glob>().unwrap().fits(text)
    }

    #[test]
    fn stars_and_question_marks() {
        assert!(fits("*.Temp*", "Line1.Temperature") && fits("*temp*", "TEMP") && fits("Line ?", "Line 7"));
        assert!(fits("", "") && fits("*", "") && fits("**", "x") && fits("a*b*c", "aXbYbZc") && fits("ü?", "Üö"));
        assert!(!fits("*.Temp*", "Temperature") && !fits("Line ?", "Line 12") && !fits("", "x") && !fits("a*b", "abc"));
    }
}
