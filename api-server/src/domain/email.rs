//! E-mail addresses as login names.

/// Longest address that SMTP can carry (RFC 5321).
const MAX_LEN: usize = 254;

/// The form under which an address is unique: trimmed and in lower case.
///
/// Lower-casing the local part joins addresses that a mail server could tell apart; none does in practice, and two
/// users whose names differ by case would be an invitation to fraud.
#[must_use]
pub fn normalize(address: &str) -> String {
    address.trim().to_lowercase()
}

/// What is wrong with an address, if anything. Only its shape is looked at: whether it exists is proven by mail.
#[must_use]
pub fn fault(address: &str) -> Option<&'static str> {
    let address = address.trim();
    if address.len() > MAX_LEN {
        return Some("must be at most 254 bytes long");
    }
    if address.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("must not contain white space or control characters");
    }
    let well_formed = address.split_once('@').is_some_and(|(local, domain)| {
        let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        !local.is_empty() && !domain.contains('@') && domain.contains('.') && domain.split('.').all(label)
    });
    (!well_formed).then_some("must be an e-mail address such as name@example.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_differ_by_case_or_margin_are_the_same() {
        assert_eq!(normalize("  Ada.Lovelace@Example.COM "), "ada.lovelace@example.com");
    }

    #[test]
    fn plausible_addresses_pass() {
        for address in ["a@b.co", "ada+bank@mail.example.com", " padded@example.com ", "ü@exämple.de"] {
            assert_eq!(fault(address), None, "{address}");
        }
    }

    #[test]
    fn others_do_not() {
        let long = format!("{}@example.com", "a".repeat(250));
        for address in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "a@b@c.de",
            "a b@c.de",
            "a@b..de",
            "a@-b.de",
            "a\0@b.de",
            &long,
        ] {
            assert!(fault(address).is_some(), "{address}");
        }
    }
}
