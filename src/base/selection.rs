//! Which names are meant, by patterns.
//!
//! A pattern is matched segment by segment. In a segment `*` stands for any characters and `?` for one; the segment `**`
//! stands for any number of segments, also none.

#[derive(Clone, Debug, Default)]
pub struct Selection(Vec<Vec<String>>);

/// What is wrong with a pattern.
pub fn check_pattern(pattern: &str) -> Option<String> {
    let is_wrong = pattern.split('/').any(|segment| segment.is_empty() || segment.trim() != segment);
    is_wrong.then(|| {
        format!("{pattern:?} has an empty segment or blanks around one; write it as in \"system/**\" or \"line1/*\"")
    })
}

impl Selection {
    pub fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| pattern.split('/').map(str::to_owned).collect()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, name: &str) -> bool {
        let name: Vec<&str> = name.split('/').collect();
        self.0.iter().any(|pattern| {
            matches(pattern, &name, |pattern| pattern == "**", |pattern, segment| is_like(pattern, segment))
        })
    }
}

/// Whether the whole text is like the pattern, in which `*` stands for any characters, also `/`, and `?` for one.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    matches(&pattern, &text, |&pattern| pattern == '*', |&pattern, &c| pattern == '?' || pattern == c)
}

/// Whether the whole text is like the pattern, in which whatever `is_many` says yes to stands for any number of items.
/// In linear space and in the product of the lengths at most: on a mismatch only the last such place takes one more.
fn matches<P, T>(pattern: &[P], text: &[T], is_many: impl Fn(&P) -> bool, is_one: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut place, mut retry) = (0, 0, None);
    while at < text.len() {
        match pattern.get(place) {
            Some(item) if is_many(item) => {
                retry = Some((place, at));
                place += 1;
            }
            Some(item) if is_one(item, &text[at]) => {
                place += 1;
                at += 1;
            }
            _ => {
                let Some((many, from)) = retry else { return false };
                retry = Some((many, from + 1));
                (place, at) = (many + 1, from + 1);
            }
        }
    }
    pattern[place..].iter().all(is_many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_parts_and_double_stars_for_segments() {
        let selects = |pattern: &str, name: &str| Selection::new(&[pattern.to_owned()]).contains(name);
        for (pattern, yes, no) in [
            ("a/b", "a/b", "a/b/c"),
            ("a/*", "a/b", "a/b/c"),
            ("a/**", "a/b/c", "b/c"),
            ("a/**", "a", "ab"),
            ("**", "a/b", ""),
            ("**/c", "a/b/c", "a/b/cd"),
            ("a/**/d", "a/d", "a/d/e"),
            ("*/temp*re", "k/temperature", "k/temperatures"),
            ("l?ne/*", "line/x", "lne/x"),
            ("*a*b*", "xaybz", "xbya"),
            ("Füll*/?", "Füllstand/ü", "Füllstand/üü"),
        ] {
            assert!(selects(pattern, yes), "{pattern} {yes}");
            assert!(no.is_empty() || !selects(pattern, no), "{pattern} {no}");
        }
        assert!(!Selection::default().contains("a"));
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        let pattern = "*a".repeat(60);
        assert!(!Selection::new(&[pattern]).contains(&("a".repeat(250) + "b")));
    }
}
