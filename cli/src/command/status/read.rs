//! Reads the contents of `status` in one statement, so that all of it shows one moment.

use arrow::array::RecordBatch;
use capstan_model::{Failure, Time, TimeRange};
use futures::StreamExt;

use super::{LossLine, Span, Status};
use crate::command::asked::{Asked, is_rest_of_answer, touching};
use crate::command::cells;

/// Reads the status of a range. The second value is what is missing in it.
///
/// # Errors
/// Any failure of the store or the server.
pub(super) async fn status(
    asked: &Asked,
    range: TimeRange,
) -> Result<(Status, Result<(), Failure>), Failure> {
    let mut answer = asked.query(&statement(range)).await?;
    let (mut found, mut ended) = (Found::default(), Ok(()));
    while let Some(batch) = answer.batches.next().await {
        match batch {
            Ok(batch) => found.take(&batch, range)?,
            Err(failure) if is_rest_of_answer(&failure) => {
                ended = Err(failure);
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok((found.finish(), ended))
}

/// Rows of several kinds under the same columns.
fn statement(range: TimeRange) -> String {
    let segments = touching(range, "first_time", "last_time");
    // `end_time` is not included. A loss may be at a single moment.
    let stretch = |kind: &str| {
        let mut condition = format!("kind = '{kind}'");
        if range.start != TimeRange::ALL.start {
            let start = range.start;
            condition += &format!(" AND (end_time > '{start}' OR start_time = '{start}')");
        }
        if range.end != TimeRange::ALL.end {
            condition += &format!(" AND start_time < '{}'", range.end);
        }
        condition
    };
    let (listened, lost) = (stretch("listened"), stretch("lost"));
    // The first part gives the columns their names and types.
    format!(
        "SELECT 'segments' AS kind, CAST(NULL AS TEXT) AS name, CAST(NULL AS TEXT) AS cause, \
           CAST(NULL AS TEXT) AS note, count(*) AS a, sum(packets) AS b, sum(flow_parts) AS c, \
           sum(captured_bytes) AS d, sum(wire_bytes) AS e, \
           min(first_time) AS from_time, max(last_time) AS to_time \
           FROM segments WHERE {segments} \
         UNION ALL SELECT 'layer', layer, NULL, NULL, sum(bytes), NULL, NULL, NULL, NULL, NULL, NULL \
           FROM files WHERE {segments} GROUP BY layer \
         UNION ALL SELECT 'protocol', protocol, NULL, NULL, sum(packets), NULL, NULL, NULL, NULL, \
           NULL, NULL FROM protocols WHERE {segments} GROUP BY protocol \
         UNION ALL SELECT DISTINCT 'listened', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
           start_time, end_time FROM coverage WHERE {listened} \
         UNION ALL SELECT 'lost', recorder, cause, note, packets, bytes, NULL, NULL, NULL, \
           start_time, end_time FROM coverage WHERE {lost} \
         UNION ALL SELECT 'problem', problem, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
           start_time, end_time FROM problems \
         UNION ALL SELECT 'store', place, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
           FROM store"
    )
}

/// The newest packets of a recorder may be this much later than the end of its coverage, nanoseconds.
const TAIL: i64 = 10_000_000_000;

#[derive(Debug, Default)]
struct Found {
    status: Status,
    listened: Vec<TimeRange>,
    /// From the oldest to the newest packet.
    packets: Option<TimeRange>,
    /// Those at an unknown time come first.
    losses: Vec<(Option<TimeRange>, LossLine)>,
}

/// Whether a problem concerns the selected range. An unknown side is unbounded.
fn hides(from: Option<Time>, to: Option<Time>, asked: TimeRange) -> bool {
    let range = TimeRange { start: from.unwrap_or(Time::MIN), end: to.unwrap_or(Time::MAX) };
    range.intersect(&asked).is_some()
}

/// Times with unknown coverage: between the covered ranges, and where packets are before the first or after the
/// last.
fn unknown(listened: &[TimeRange], packets: Option<TimeRange>) -> Vec<TimeRange> {
    let mut unknown: Vec<TimeRange> = listened
        .windows(2)
        .map(|pair| TimeRange { start: pair[0].end, end: pair[1].start })
        .collect();
    let Some(packets) = packets else { return unknown };
    let (Some(first), Some(last)) = (listened.first(), listened.last()) else {
        return vec![packets];
    };
    if packets.start < first.start {
        unknown.insert(0, TimeRange { start: packets.start, end: first.start });
    }
    if packets.end > Time(last.end.0.saturating_add(TAIL)) {
        unknown.push(TimeRange { start: last.end, end: packets.end });
    }
    unknown
}

impl Found {
    fn take(&mut self, batch: &RecordBatch, asked: TimeRange) -> Result<(), Failure> {
        let text = |name| cells::texts(batch, name);
        let (kinds, names, causes, notes) =
            (text("kind")?, text("name")?, text("cause")?, text("note")?);
        let number = |name| cells::numbers(batch, name);
        let [a, b, c, d, e] =
            [number("a")?, number("b")?, number("c")?, number("d")?, number("e")?];
        let (from, to) = (cells::times(batch, "from_time")?, cells::times(batch, "to_time")?);
        let rows = kinds.into_iter().zip(names).zip(causes.into_iter().zip(notes));
        for (row, ((kind, name), (cause, note))) in rows.enumerate() {
            let count = |of: &[u64]| of.get(row).copied().unwrap_or(0);
            let time = |of: &[Option<Time>]| of.get(row).copied().flatten();
            let (name, status) = (name.unwrap_or_default(), &mut self.status);
            let range = time(&from).zip(time(&to)).map(|(start, end)| TimeRange { start, end });
            match kind.as_deref() {
                Some("store") => status.store = name,
                Some("segments") => {
                    status.segments = count(&a);
                    status.packets = count(&b);
                    status.flow_parts = count(&c);
                    status.captured_bytes = count(&d);
                    status.wire_bytes = count(&e);
                    status.oldest = time(&from).map(|time| time.to_string());
                    status.newest = time(&to).map(|time| time.to_string());
                    let packets =
                        range.map(|of| TimeRange { end: Time(of.end.0.saturating_add(1)), ..of });
                    self.packets = packets.and_then(|packets| packets.intersect(&asked));
                }
                Some("layer") => {
                    status.stored_bytes = status.stored_bytes.saturating_add(count(&a));
                    status.layers.insert(name, count(&a));
                }
                Some("protocol") => {
                    status.packets_by_protocol.insert(name, count(&a));
                }
                Some("listened") => self.listened.extend(range),
                Some("lost") => self.losses.push((
                    range,
                    LossLine {
                        recorder: name,
                        from: range.map(|range| range.start.to_string()),
                        to: range.map(|range| range.end.to_string()),
                        cause: cause.unwrap_or_default(),
                        packets: count(&a),
                        bytes: count(&b),
                        note: note.unwrap_or_default(),
                    },
                )),
                // A problem at unknown times concerns every range.
                Some("problem") if hides(time(&from), time(&to), asked) => {
                    status.problems.push(name)
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Status {
        let Found { mut status, listened, packets, mut losses } = self;
        let span =
            |range: &TimeRange| Span { from: range.start.to_string(), to: range.end.to_string() };
        let listened = TimeRange::union(listened);
        status.unknown = unknown(&listened, packets).iter().map(span).collect();
        status.listened = listened.iter().map(span).collect();
        let when = |range: &Option<TimeRange>| range.map(|range| (range.start, range.end));
        losses.sort_by(|(a, x), (b, y)| {
            (when(a), &x.recorder, &x.note).cmp(&(when(b), &y.recorder, &y.note))
        });
        status.losses = losses.into_iter().map(|(_, loss)| loss).collect();
        status.problems.sort();
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_outside_the_coverage_are_in_unknown_time() {
        let range = |start, end| TimeRange { start: Time(start), end: Time(end) };
        let listened = [range(10, 20), range(30, 40)];
        let between = range(20, 30);
        assert_eq!(unknown(&listened, None), [between]);
        assert_eq!(unknown(&listened, Some(range(12, 40 + TAIL))), [between]);
        let far = range(5, 41 + TAIL);
        assert_eq!(unknown(&listened, Some(far)), [range(5, 10), between, range(40, 41 + TAIL)]);
        assert_eq!(unknown(&[], Some(far)), [far]);
        assert_eq!(unknown(&[], None), []);
    }
}
