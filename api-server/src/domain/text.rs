//! Free text from clients.

/// What is wrong with a text of 1 to `max` code points, if anything. Control characters are refused: they have no
/// place in names and remittance texts, and PostgreSQL cannot store a NUL.
#[must_use]
pub fn fault(text: &str, max: usize) -> Option<String> {
    if text.chars().any(char::is_control) {
        return Some("must not contain control characters".to_owned());
    }
    let length = text.chars().count();
    (text.trim().is_empty() || length > max).then(|| format!("must have 1 to {max} characters and not be blank"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_code_points() {
        assert_eq!(fault("ééé", 3), None);
        assert!(fault("éééé", 3).is_some());
    }

    #[test]
    fn blank_and_control_characters_are_refused() {
        for text in ["", "   ", "a\0b", "a\nb"] {
            assert!(fault(text, 10).is_some(), "{text:?}");
        }
    }
}
