//! Public forms of users and sessions: a prefix that tells the kind, then the UUID in lower-case base32.

use data_encoding::BASE32_NOPAD_NOCASE as BASE32;
use uuid::Uuid;

/// Prefix of a user's id.
pub const USER: &str = "usr_";
/// Prefix of a session's id.
pub const SESSION: &str = "ses_";

/// The public form of an id.
#[must_use]
pub fn encode(prefix: &str, id: Uuid) -> String {
    format!("{prefix}{}", BASE32.encode(id.as_bytes()).to_ascii_lowercase())
}

/// The id in a public form; `None` for anything that [`encode`] would not have written.
#[must_use]
pub fn decode(prefix: &str, text: &str) -> Option<Uuid> {
    let bytes = BASE32.decode(text.strip_prefix(prefix)?.as_bytes()).ok()?;
    let id = Uuid::from_slice(&bytes).ok()?;
    (encode(prefix, id) == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_forms_round_trip() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let text = encode(USER, id);
        assert_eq!(text, "usr_agiaaaaaabyabaaaaaaaaaaaae");
        assert_eq!(decode(USER, &text), Some(id));
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = encode(USER, Uuid::from_u128(1));
        for wrong in [text.to_uppercase(), text.replace("usr_", "ses_"), format!("{text}a"), text[..20].to_owned()] {
            assert_eq!(decode(USER, &wrong), None, "{wrong}");
        }
    }
}
