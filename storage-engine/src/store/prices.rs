//! Prices of requests, from a configurable table.

use serde::Deserialize;

use super::Requests;

/// US dollars per thousand requests of a kind, and per GiB.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// A thousand PUTs.
    pub put: f64,
    /// A thousand LISTs, each of up to 1,000 names.
    pub list: f64,
    /// A thousand GETs, whole or of a range.
    pub get: f64,
    /// A thousand HEADs.
    pub head: f64,
    /// A thousand DELETEs.
    pub delete: f64,
    /// A GiB that is read.
    pub read_gib: f64,
    /// A GiB that is written.
    pub written_gib: f64,
}

impl Default for Prices {
    /// S3 Standard in us-east-1, asked from the same region: list prices of 2026.
    fn default() -> Self {
        Prices {
            put: 0.005,
            list: 0.005,
            get: 0.000_4,
            head: 0.000_4,
            delete: 0.0,
            read_gib: 0.0,
            written_gib: 0.0,
        }
    }
}

impl Prices {
    /// A local disk.
    pub const FREE: Prices = Prices {
        put: 0.0,
        list: 0.0,
        get: 0.0,
        head: 0.0,
        delete: 0.0,
        read_gib: 0.0,
        written_gib: 0.0,
    };

    /// The price of requests, in US dollars.
    pub fn of(&self, requests: &Requests) -> f64 {
        let thousands = |many: u64, price: f64| many as f64 / 1_000.0 * price;
        let gib = |bytes: u64, price: f64| bytes as f64 / f64::from(1 << 30) * price;
        thousands(requests.puts, self.put)
            + thousands(requests.lists, self.list)
            + thousands(requests.gets, self.get)
            + thousands(requests.heads, self.head)
            + thousands(requests.deletes, self.delete)
            + gib(requests.bytes_read, self.read_gib)
            + gib(requests.bytes_written, self.written_gib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_kind_has_its_price() {
        let requests = Requests {
            gets: 2_000,
            puts: 1_000,
            lists: 3_000,
            heads: 1_000,
            deletes: 7,
            bytes_read: 1 << 30,
            bytes_written: 1 << 31,
        };
        let sum = Prices::default().of(&requests);
        assert!((sum - (0.000_8 + 0.005 + 0.015 + 0.000_4)).abs() < 1e-12, "{sum}");
        let far = Prices { read_gib: 0.09, written_gib: 0.01, ..Prices::FREE };
        assert!((far.of(&requests) - 0.11).abs() < 1e-12);
        assert!(Prices::FREE.of(&requests).abs() < f64::EPSILON);
    }
}
