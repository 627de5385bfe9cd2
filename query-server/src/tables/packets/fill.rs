//! The columns of captured bytes, filled packet by packet.

use std::sync::Arc;

use capstan_storage_engine::segment::Corrupt;
use datafusion::arrow::array::{ArrayRef, BinaryBuilder};

use super::PacketRequest;
use crate::tables::columns::PacketColumn;
use crate::tables::packet_rows::{self, Decoded};

/// The columns of captured bytes of one batch.
pub(super) type Filled = Vec<(PacketColumn, ArrayRef)>;

/// Fills the columns of captured bytes, packet by packet, batch by batch.
pub(super) struct Filler<'a> {
    decoded: &'a [Decoded],
    /// Which batch, and which row of it, is next.
    at: (usize, usize),
    columns: Vec<(PacketColumn, BinaryBuilder)>,
    done: Vec<Filled>,
    /// Bytes put into the columns of the batch.
    held: usize,
    wrong: Option<Corrupt>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(request: &PacketRequest, decoded: &'a [Decoded]) -> Self {
        let columns = request
            .columns
            .iter()
            .filter(|column| packet_rows::is_bytes(**column))
            .map(|column| (*column, BinaryBuilder::new()))
            .collect();
        Filler { decoded, at: (0, 0), columns, done: Vec::new(), held: 0, wrong: None }
    }

    /// Takes the next packet: how many bytes of it were captured, and those that are left.
    pub(super) fn put(&mut self, captured: u32, data: &[u8]) {
        let (batch, row) = self.at;
        let Some(decoded) = self.decoded.get(batch) else {
            self.fail("more packets than rows");
            return;
        };
        let inside = decoded.inside.as_ref().is_none_or(|inside| inside.value(row));
        self.held = self.held.saturating_add(data.len());
        if self.held > i32::MAX as usize {
            self.fail("more bytes than one segment can have");
            return;
        }
        // Payload that retention deleted is null, which empty payload is not.
        let is_whole = data.len() >= captured as usize;
        // What lies outside the window is left out afterwards.
        let data = if inside { data } else { &[] };
        let prefix = decoded.prefixes.get(row).map_or(0, |prefix| *prefix as usize);
        let (header, payload) = data.split_at(prefix.min(data.len()));
        for (column, builder) in &mut self.columns {
            match column {
                PacketColumn::Header => builder.append_value(header),
                _ if !is_whole => builder.append_null(),
                PacketColumn::Payload => builder.append_value(payload),
                _ => builder.append_value(data),
            }
        }
        self.at.1 += 1;
        if self.at.1 == decoded.rows {
            self.close();
        }
    }

    fn close(&mut self) {
        let arrays = self.columns.iter_mut();
        let arrays =
            arrays.map(|(column, builder)| (*column, Arc::new(builder.finish()) as ArrayRef));
        self.done.push(arrays.collect());
        self.at = (self.at.0 + 1, 0);
        self.held = 0;
    }

    fn fail(&mut self, what: &str) {
        let wrong = || Corrupt::new("packets", what);
        self.wrong.get_or_insert_with(wrong);
    }

    pub(super) fn finish(mut self) -> Result<Vec<Filled>, Corrupt> {
        if self.at.1 != 0 || self.done.len() != self.decoded.len() {
            self.fail("fewer packets than rows");
        }
        match self.wrong {
            Some(wrong) => Err(wrong),
            None => Ok(self.done),
        }
    }
}
