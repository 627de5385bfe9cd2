//! Columns that are null under a mask: their values number what a recorder stored, so those of visible rows tell how
//! much is hidden between them.

use std::sync::Arc;

use capstan_view::access::Principal;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};

/// The names of these columns, in all tables.
pub(super) const HIDDEN: [&str; 2] = ["ordinal", "segment"];

/// The schema of a table, or of some of its columns, as a principal gets it: hidden columns may be null.
pub(super) fn schema(schema: SchemaRef, who: &Principal) -> SchemaRef {
    if !who.is_masked() {
        return schema;
    }
    let field = |field: &Arc<Field>| {
        let nullable = field.is_nullable() || HIDDEN.contains(&field.name().as_str());
        field.as_ref().clone().with_nullable(nullable)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}
