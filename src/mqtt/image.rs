//! Where pictures are, for who sends them and for who waits for one.

use std::fmt::Write;

/// Where the JPEGs of a camera go. The name is one level: `/`, `+`, `#`, `%` and control characters are written as `%` and
/// two hexadecimal digits for each of their bytes, as in a URL, so that the name can be had back.
pub fn image_topic(prefix: &str, camera: &str) -> String {
    let mut topic = format!("{prefix}/image/");
    for c in camera.chars() {
        if matches!(c, '/' | '+' | '#' | '%') || c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(topic, "%{byte:02X}").expect("a String takes everything");
            }
        } else {
            topic.push(c);
        }
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::image_topic as topic;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_one_level() {
        assert_eq!(topic("p", "Linie 1 (süd)"), "p/image/Linie 1 (süd)");
        assert_eq!(topic("p", "a/b+c#d%e\0\u{85}"), "p/image/a%2Fb%2Bc%23d%25e%00%C2%85");
    }

    fn back(level: &str) -> String {
        let mut parts = level.split('%');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend(&part.as_bytes()[2..]);
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn any_name_comes_back_from_its_level(name in "(\\PC|[/+#%\\x00-\\x1f\\x7f-\\x9f]){0,20}") {
            let topic = topic("", &name);
            let level = topic.strip_prefix("/image/").unwrap();
            prop_assert!(!level.contains(['/', '+', '#', '\0']));
            prop_assert_eq!(back(level), name);
        }
    }
}
