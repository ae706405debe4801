//! Amounts and currencies. Money is an integer of minor units (cents, yen, fils); there is no floating point here.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::text::as_text;

/// The largest amount or balance, in minor units: 2^53 - 1, the largest integer every JSON reader keeps exact.
pub const MAX_MINOR_UNITS: i64 = (1 << 53) - 1;

/// What makes a number or a code unusable as money.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// Zero, negative, or more than [`MAX_MINOR_UNITS`].
    #[error("an amount is a whole number of minor units from 1 to {MAX_MINOR_UNITS}")]
    AmountOutOfRange,
    /// Not an ISO 4217 code in upper case.
    #[error("unknown currency code")]
    UnknownCurrency,
}

/// A positive number of minor units, at most [`MAX_MINOR_UNITS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Amount(i64);

impl Amount {
    /// The number of minor units.
    #[must_use]
    pub const fn minor_units(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Amount {
    type Error = MoneyError;

    fn try_from(minor_units: i64) -> Result<Self, MoneyError> {
        if (1..=MAX_MINOR_UNITS).contains(&minor_units) {
            Ok(Self(minor_units))
        } else {
            Err(MoneyError::AmountOutOfRange)
        }
    }
}

impl From<Amount> for i64 {
    fn from(amount: Amount) -> Self {
        amount.0
    }
}

/// A currency in circulation, by its ISO 4217 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Currency {
    code: &'static str,
    exponent: u8,
}

impl Currency {
    /// The three-letter code, `USD`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.code
    }

    /// How many decimal places the minor unit is: 2 for `USD`, 0 for `JPY`, 3 for `KWD`.
    #[must_use]
    pub const fn exponent(self) -> u8 {
        self.exponent
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        let known = |exponent, codes: &'static [&'static str]| {
            codes.binary_search(&code).ok().map(|at| Self { code: codes[at], exponent })
        };
        EXPONENTS.iter().find_map(|&(exponent, codes)| known(exponent, codes)).ok_or(MoneyError::UnknownCurrency)
    }
}

as_text!(Currency);

// By hand, because the derive would take the code for something borrowed from the input.
impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// ISO 4217 list one without funds, metals and test codes: exponent, and its codes in alphabetical order.
const EXPONENTS: [(u8, &[&str]); 3] = [
    (
        2,
        &[
            "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BMD", "BND", "BOB",
            "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP", "CRC", "CUP", "CVE", "CZK",
            "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GTQ",
            "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD", "KES", "KGS", "KHR", "KPW", "KYD",
            "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR",
            "MVR", "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP",
            "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS",
            "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH",
            "USD", "UYU", "UZS", "VED", "VES", "WST", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
        ],
    ),
    (
        0,
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF",
            "XPF",
        ],
    ),
    (3, &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_positive_and_exact_in_json() {
        for refused in [i64::MIN, -1, 0, MAX_MINOR_UNITS + 1, i64::MAX] {
            assert_eq!(Amount::try_from(refused), Err(MoneyError::AmountOutOfRange), "{refused}");
        }
        for accepted in [1, MAX_MINOR_UNITS] {
            assert_eq!(Amount::try_from(accepted).map(Amount::minor_units), Ok(accepted));
        }
        for json in ["0", "-5", "1.5", "1e3", "\"5\"", "9007199254740992"] {
            assert!(serde_json::from_str::<Amount>(json).is_err(), "{json}");
        }
        assert_eq!(serde_json::from_str::<Amount>("9007199254740991").unwrap().minor_units(), MAX_MINOR_UNITS);
    }

    #[test]
    fn currencies_have_their_exponent() {
        for (code, exponent) in
            [("USD", 2), ("EUR", 2), ("GBP", 2), ("CAD", 2), ("AUD", 2), ("CHF", 2), ("JPY", 0), ("KWD", 3)]
        {
            let currency: Currency = code.parse().unwrap();
            assert_eq!((currency.code(), currency.exponent()), (code, exponent));
            assert_eq!(serde_json::to_string(&currency).unwrap(), format!("\"{code}\""));
        }
        for unknown in ["usd", "XXX", "US", "USDX", "", "ÄÖ"] {
            assert_eq!(unknown.parse::<Currency>(), Err(MoneyError::UnknownCurrency), "{unknown}");
        }
    }

    #[test]
    fn every_listed_code_is_found() {
        for (exponent, codes) in EXPONENTS {
            for code in codes {
                let currency: Currency = code.parse().unwrap();
                assert_eq!((currency.code(), currency.exponent()), (*code, exponent));
            }
        }
    }
}
