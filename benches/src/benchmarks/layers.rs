//! Bytes of a packet and of a flow part in the layers without payload.

use capstan_model::{Failure, FailureKind};
use serde_json::Value;

use crate::bench::{Bench, Measured, Outcome};
use crate::report::{Figure, Judged, Row};

pub(super) fn run(bench: &mut Bench) -> Result<Outcome, Failure> {
    let store = bench.store()?;
    rows(&bench.status(&store)?)
        .map(|rows| Outcome::Measured(Measured { rows, notes: vec![] }))
        .ok_or_else(|| {
            Failure::new(FailureKind::Other, "capstan status does not tell what layers take")
        })
}

/// The rows from what `capstan status` says.
fn rows(status: &Value) -> Option<Vec<Row>> {
    let row = |layer: &str, per: &str, count: &str, unit, floor, aim| {
        let bytes = status["layers"][layer].as_u64()?;
        let each = bytes as f64 / status[count].as_u64()? as f64;
        Some(Row {
            work: format!("bytes of `{layer}` a {per}"),
            ours: Figure::Bytes(bytes),
            peers: vec![],
            judged: Judged::new(each, unit, floor, aim),
        })
    };
    Some(vec![
        row("packets", "packet", "packets", "B a packet", 18.0, 14.0)?,
        row("flows", "flow part", "flow_parts", "B a flow part", 80.0, 60.0)?,
        row("index", "packet", "packets", "B a packet", 3.0, 2.0)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_divided_by_what_they_hold() {
        let mut status = serde_json::json!({
            "packets": 100, "flow_parts": 10,
            "layers": {"packets": 1500, "flows": 700, "index": 50}
        });
        let values: Vec<f64> = rows(&status).unwrap().iter().map(|row| row.judged.value).collect();
        assert_eq!(values, [15.0, 70.0, 0.5]);
        status["layers"] = Value::Null;
        assert!(rows(&status).is_none());
    }
}
