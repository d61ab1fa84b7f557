//! Patterns with `*` and `?`, as a shell has them, upper and lower case alike.

/// `*Temp*`, `Line ?`: the whole text has to fit.
#[derive(Clone, Debug)]
pub(super) struct Glob(Vec<char>);

impl std::str::FromStr for Glob {
    type Err = std::convert::Infallible;

    fn from_str(pattern: &str) -> Result<Self, Self::Err> {
        Ok(Self(pattern.chars().flat_map(char::to_lowercase).collect()))
    }
}

impl Glob {
    /// In time of pattern times text at most: only the last `*` is ever gone back to.
    pub(super) fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
        let (mut at, mut in_pattern) = (0, 0);
        let mut star = None;
        while at < text.len() {
            match self.0.get(in_pattern) {
                Some('*') => {
                    star = Some((in_pattern, at));
                    in_pattern += 1;
                }
                Some(&wanted) if wanted == '?' || wanted == text[at] => {
                    at += 1;
                    in_pattern += 1;
                }
                _ => {
                    let Some((of_star, from)) = star else { return false };
                    star = Some((of_star, from + 1));
                    at = from + 1;
                    in_pattern = of_star + 1;
                }
            }
        }
        self.0[in_pattern..].iter().all(|&rest| rest == '*')
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

    #[test]
    fn a_hostile_pattern_ends() {
        assert!(!fits(&"*a".repeat(200), &format!("{}b", "a".repeat(20_000))));
    }
}
