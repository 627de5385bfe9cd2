//! The registry of layers: what a build knows of the layers of a segment.
//!
//! It is a value, so that a test can open a store as a build that knows more. A new table is one [`TableLayer`] in
//! [`Layers::KNOWN`]: writer, reader, `verify`, `repair`, `files`, `status` and SQL take it from there. A layer that
//! is not in the registry is of a newer version: it is shown by its name, and is never damage.

use super::layer::{Layer, TableLayer};
use super::{flows, packets};

/// The layers that a build knows.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// The table of packets.
    pub packets: &'static TableLayer,
    /// The table of flow parts.
    pub flows: &'static TableLayer,
    /// Tables that may be added to a sealed segment.
    pub added: &'static [TableLayer],
}

impl Layers {
    /// Those of this version.
    pub const KNOWN: Layers = Layers { packets: &packets::TABLE, flows: &flows::TABLE, added: &[] };

    /// Every layer, in the order in which they may be deleted: `index` goes last.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = Layer> + Clone + use<> {
        let (first, last) = Layer::SEALED.split_at(Layer::SEALED.len() - 1);
        let added = self.added.iter().map(Layer::Added);
        first.iter().copied().chain(added).chain(last.iter().copied())
    }

    /// The layer with this name; none if this build does not know it.
    pub fn named(&self, name: &str) -> Option<Layer> {
        self.all().find(|layer| layer.name() == name)
    }

    /// What a layer is as a table; none if it has no rows.
    pub fn table(&self, layer: Layer) -> Option<&'static TableLayer> {
        match layer {
            Layer::Packets => Some(self.packets),
            Layer::Flows => Some(self.flows),
            Layer::Added(table) => Some(table),
            Layer::Body | Layer::Head | Layer::Index => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::segment::Directory;

    #[test]
    fn layers_are_found_by_their_names_and_have_one_each() {
        let names: BTreeSet<_> = Layers::KNOWN.all().map(Layer::name).collect();
        assert_eq!(names.len(), Layers::KNOWN.all().count());
        for layer in Layers::KNOWN.all() {
            assert_eq!(Layers::KNOWN.named(layer.name()), Some(layer));
            assert!(layer.file().starts_with(layer.name()), "{layer:?}");
            let Some(table) = Layers::KNOWN.table(layer) else { continue };
            assert_eq!((table.name, table.file), (layer.name(), layer.file()));
            let is_added = matches!(layer, Layer::Added(_));
            assert_eq!(table.directory == Directory::Own, is_added, "{layer:?}");
        }
        assert_eq!(Layers::KNOWN.named("calls-of-tomorrow"), None);
        assert_eq!(Layers::KNOWN.all().last(), Some(Layer::Index));
    }

    /// Columns by id, as `docs/format.md` lists them in the section of an object.
    fn documented(file: &str) -> BTreeSet<(i32, String)> {
        let page = include_str!("../../../docs/format.md");
        let (_, section) = page.split_once(&format!("\n## `{file}`\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let mut columns = BTreeSet::new();
        let lines = section.lines().skip_while(|line| !line.starts_with("| id | column |"));
        for line in lines.skip(2).take_while(|line| line.starts_with('|')) {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let (ids, names) = (cells.next().unwrap(), cells.next().unwrap());
            let number = |text: &str| text.parse::<i32>().unwrap();
            let ids: Vec<i32> = match ids.split_once(" to ") {
                Some((first, last)) => (number(first)..=number(last)).collect(),
                None => ids.split(", ").map(number).collect(),
            };
            let names = names.split(", ").map(|name| name.trim_matches('`').to_owned());
            columns.extend(ids.into_iter().zip(names));
        }
        columns
    }

    #[test]
    fn every_stored_column_is_documented_with_its_id() {
        for table in Layers::KNOWN.all().filter_map(|layer| Layers::KNOWN.table(layer)) {
            let there = table.columns.iter().map(|column| (column.id, column.name.to_owned()));
            assert_eq!(documented(table.file), there.collect(), "{}", table.name);
        }
    }

    #[test]
    fn columns_of_a_table_have_ids_and_names_of_their_own() {
        for table in Layers::KNOWN.all().filter_map(|layer| Layers::KNOWN.table(layer)) {
            let ids: BTreeSet<_> = table.columns.iter().map(|column| column.id).collect();
            let names: BTreeSet<_> = table.columns.iter().map(|column| column.name).collect();
            let shown: Vec<_> = table.columns.iter().filter_map(|column| column.shown).collect();
            let in_sql: BTreeSet<_> = shown.iter().map(|(name, _)| name).collect();
            let count = table.columns.len();
            assert_eq!((ids.len(), names.len(), in_sql.len()), (count, count, shown.len()));
            assert!(ids.first() >= Some(&1), "{}", table.name);
        }
    }
}
