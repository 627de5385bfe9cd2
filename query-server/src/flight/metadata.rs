//! Metadata about the server for Flight SQL clients: catalogs, tables, types, keys, abilities (Arrow Flight SQL,
//! FlightSql.proto).

use std::sync::{Arc, LazyLock};

use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, Nullable, Searchable, SqlInfo, SqlNullOrdering,
    SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
};
use capstan_model::{Failure, FailureKind};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::TableType;
use datafusion::prelude::SessionContext;

use super::{status, wire};

/// Filters such as `%` patterns come from the caller, so failures of them are errors of the request.
fn unbuilt(error: arrow_flight::error::FlightError) -> Failure {
    Failure::caused_by(FailureKind::Usage, "cannot list the catalog with this filter", error)
}

/// One row a catalog.
pub(super) fn catalogs(
    context: &SessionContext,
    command: CommandGetCatalogs,
) -> Result<RecordBatch, Failure> {
    let mut rows = command.into_builder();
    context.catalog_names().into_iter().for_each(|name| rows.append(name));
    rows.build().map_err(unbuilt)
}

/// One row a schema that fits the command's filters.
pub(super) fn schemas(
    context: &SessionContext,
    command: CommandGetDbSchemas,
) -> Result<RecordBatch, Failure> {
    let mut rows = command.into_builder();
    for catalog_name in context.catalog_names() {
        let Some(catalog) = context.catalog(&catalog_name) else { continue };
        for schema in catalog.schema_names() {
            rows.append(&catalog_name, schema);
        }
    }
    rows.build().map_err(unbuilt)
}

/// One row a table that fits the command's filters, with its schema where asked.
pub(super) async fn tables(
    context: &SessionContext,
    command: CommandGetTables,
) -> Result<RecordBatch, Failure> {
    let mut rows = command.into_builder();
    for catalog_name in context.catalog_names() {
        let Some(catalog) = context.catalog(&catalog_name) else { continue };
        for schema_name in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema_name) else { continue };
            for name in schema.table_names() {
                let table = schema.table(&name).await.map_err(|e| status::from_query(&e))?;
                // Removed since it was listed.
                let Some(table) = table else { continue };
                let columns = wire::wire_schema(&table.schema());
                rows.append(&catalog_name, &schema_name, name, kind(table.table_type()), &columns)
                    .map_err(unbuilt)?;
            }
        }
    }
    rows.build().map_err(unbuilt)
}

fn kind(table: TableType) -> &'static str {
    match table {
        TableType::Base => "TABLE",
        TableType::View => "VIEW",
        TableType::Temporary => "LOCAL TEMPORARY",
    }
}

/// The kinds of table there are.
pub(super) fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, Failure> {
    let mut rows = command.into_builder();
    for table in [TableType::Base, TableType::View, TableType::Temporary] {
        rows.append(kind(table));
    }
    rows.build().map_err(unbuilt)
}

/// The answer about primary keys: none are declared.
pub(super) fn no_primary_keys() -> RecordBatch {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("catalog_name", DataType::Utf8, true),
            Field::new("db_schema_name", DataType::Utf8, true),
            Field::new("table_name", DataType::Utf8, false),
            Field::new("column_name", DataType::Utf8, false),
            Field::new("key_name", DataType::Utf8, true),
            Field::new("key_sequence", DataType::Int32, false),
        ]))
    });
    RecordBatch::new_empty(Arc::clone(&SCHEMA))
}

/// The answer about foreign keys, in whichever of the three ways it is asked: none
/// are declared.
pub(super) fn no_foreign_keys() -> RecordBatch {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let end = |end: &str| {
            [("catalog", true), ("db_schema", true), ("table", false), ("column", false)].map(
                |(part, nullable)| {
                    Field::new(format!("{end}_{part}_name"), DataType::Utf8, nullable)
                },
            )
        };
        let mut fields = Vec::from(end("pk"));
        fields.extend(end("fk"));
        fields.extend([
            Field::new("key_sequence", DataType::Int32, false),
            Field::new("fk_key_name", DataType::Utf8, true),
            Field::new("pk_key_name", DataType::Utf8, true),
            Field::new("update_rule", DataType::UInt8, false),
            Field::new("delete_rule", DataType::UInt8, false),
        ]);
        Arc::new(Schema::new(fields))
    });
    RecordBatch::new_empty(Arc::clone(&SCHEMA))
}

/// What the server is and can do.
pub(super) fn sql_info() -> Result<SqlInfoData, Failure> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Capstan");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    // The version of the Arrow columnar format, not of a library.
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.append(
        SqlInfo::SqlIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32,
    );
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
    );
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.build().map_err(unbuilt)
}

/// The facts about the server that are asked for; all if none are named.
pub(super) fn chosen(
    info: &SqlInfoData,
    command: CommandGetSqlInfo,
) -> Result<RecordBatch, Failure> {
    command.into_builder(info).build().map_err(unbuilt)
}

/// The types with the number asked for; all if none is.
pub(super) fn types(
    types: &XdbcTypeInfoData,
    command: CommandGetXdbcTypeInfo,
) -> Result<RecordBatch, Failure> {
    command.into_builder(types).build().map_err(unbuilt)
}

/// The SQL types columns have.
pub(super) fn xdbc_types() -> Result<XdbcTypeInfoData, Failure> {
    use XdbcDataType::*;
    // Name, type, size (decimal digits, characters or bytes), quotes, unsigned.
    let types = [
        ("BOOLEAN", XdbcBit, 1, None, None),
        ("TINYINT", XdbcTinyint, 3, None, Some(false)),
        ("SMALLINT", XdbcSmallint, 5, None, Some(false)),
        ("INTEGER", XdbcInteger, 10, None, Some(false)),
        ("BIGINT", XdbcBigint, 19, None, Some(false)),
        ("TINYINT UNSIGNED", XdbcTinyint, 3, None, Some(true)),
        ("SMALLINT UNSIGNED", XdbcSmallint, 5, None, Some(true)),
        ("INTEGER UNSIGNED", XdbcInteger, 10, None, Some(true)),
        ("BIGINT UNSIGNED", XdbcBigint, 20, None, Some(true)),
        ("REAL", XdbcReal, 7, None, Some(false)),
        ("DOUBLE", XdbcDouble, 15, None, Some(false)),
        ("DECIMAL", XdbcDecimal, 76, None, Some(false)),
        ("VARCHAR", XdbcVarchar, i32::MAX, Some(("'", "'")), None),
        ("VARBINARY", XdbcVarbinary, i32::MAX, Some(("X'", "'")), None),
        ("DATE", XdbcDate, 10, Some(("DATE '", "'")), None),
        ("TIME", XdbcTime, 18, Some(("TIME '", "'")), None),
        ("TIMESTAMP", XdbcTimestamp, 29, Some(("TIMESTAMP '", "'")), None),
        ("INTERVAL", XdbcInterval, 64, Some(("INTERVAL '", "'")), None),
    ];
    let mut rows = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size, quotes, unsigned) in types {
        rows.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: quotes.map(|(before, _)| before.to_owned()),
            literal_suffix: quotes.map(|(_, after)| after.to_owned()),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: data_type == XdbcVarchar,
            searchable: Searchable::Full,
            unsigned_attribute: unsigned,
            auto_increment: unsigned.map(|_| false),
            local_type_name: Some(name.to_owned()),
            sql_data_type: data_type,
            num_prec_radix: unsigned.map(|_| 10),
            ..XdbcTypeInfo::default()
        });
    }
    rows.build().map_err(unbuilt)
}
