//! What was copied, in a number and a sum.

use crate::manifest::Sum;
use crate::sha256::sha256;

/// Rows of COPY text as they pass: how many, and the sum of their hashes, in which their order makes no difference.
///
/// A row's hash is the first 64 bits of its SHA-256. The sum shows accidents; who could write rows could also make them
/// fit, which is what the seal, the signature and the ledger's chain are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    rows: u64,
    digest: i128,
    /// The beginning of a row whose end is yet to come.
    row: Vec<u8>,
}

impl Tally {
    /// Adds text that begins where the last one ended. A line feed ends a row; within a row COPY writes it otherwise.
    pub fn add(&mut self, text: &[u8]) {
        let mut lines = text.split(|byte| *byte == b'\n');
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            let hash = if self.row.is_empty() {
                sha256(line)
            } else {
                self.row.extend_from_slice(line);
                sha256(&std::mem::take(&mut self.row))
            };
            let bits = hash.0.first_chunk().map_or(0, |bits| i64::from_be_bytes(*bits));
            self.rows += 1;
            self.digest += i128::from(bits);
        }
        self.row.extend_from_slice(last);
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The sum of their hashes.
    #[must_use]
    pub fn digest(&self) -> Sum {
        Sum(self.digest)
    }

    /// Whether the text ended with a row's end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.row.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn neither_order_nor_cuts_matter_and_any_change_does(
            mut rows in prop::collection::vec("[a-z\t\\\\]{0,12}", 2..20),
            cuts in prop::collection::vec(0_usize..400, 0..6),
            changed in any::<prop::sample::Index>(),
        ) {
            let text = |rows: &[String]| (rows.join("\n") + "\n").into_bytes();
            let whole = |rows: &[String]| {
                let mut tally = Tally::default();
                tally.add(&text(rows));
                tally
            };
            let expected = whole(&rows);
            prop_assert!(expected.is_whole());
            prop_assert_eq!(expected.rows(), rows.len() as u64);

            let (bytes, mut cuts) = (text(&rows), cuts);
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Tally::default(), 0);
            for cut in cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]) {
                pieces.add(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&pieces, &expected);

            rows.reverse();
            prop_assert_eq!(whole(&rows), expected.clone());
            changed.get_mut(&mut rows).push('x');
            prop_assert_ne!(whole(&rows), expected.clone());
            rows.pop();
            prop_assert_ne!(whole(&rows), expected);
        }
    }

    #[test]
    fn a_row_without_its_end_is_not_whole() {
        let mut tally = Tally::default();
        tally.add(b"1\t2\n3");
        assert!(!tally.is_whole());
        assert_eq!(tally.rows(), 1);
    }
}
