//! What is known of a statement once it is prepared, computed once and used at every execution.

use std::collections::HashMap;

use rusqlite::{Column, Connection, Statement as Compiled};

use super::columns::{big_serials, may_be_big_serial};
use super::errors;
use super::infer::Inference;
use super::lexer;
use super::statement::{Kind, Statement, syntax};
use crate::error::ServerError;
use crate::pgtypes::{self, PgType, oid};

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// The type that the client is told.
    pub kind: &'static PgType,
    /// Declared or recognised; otherwise the first value may decide.
    pub certain: bool,
}

impl ResultColumn {
    /// One whose type is known.
    pub fn certain(name: &str, oid: u32) -> ResultColumn {
        ResultColumn { name: name.to_string(), kind: pgtypes::of_oid(oid), certain: true }
    }
}

/// A parameter `$1`, `$2`, ….
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The type that the client has declared or is told; 0 unknown.
    pub oid: u32,
    /// What is known of that type.
    pub kind: &'static PgType,
    /// It is compared or calculated with: a number is bound as one, however it is written.
    pub operand: bool,
}

/// All that execution needs to know besides the text.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// SQLite says that it changes nothing.
    pub readonly: bool,
    /// Result columns; empty for statements without rows.
    pub columns: Vec<ResultColumn>,
    /// The client's parameters.
    pub parameters: Vec<Parameter>,
    /// For each of SQLite's parameters, which of the client's it is, from 0.
    pub parameter_places: Vec<usize>,
}

impl Metadata {
    /// Metadata of a statement with these columns and no parameters.
    fn of_columns(columns: Vec<ResultColumn>, readonly: bool) -> Metadata {
        Metadata { readonly, columns, parameters: Vec::new(), parameter_places: Vec::new() }
    }

    /// True if some column's type may be refined by its first value.
    pub fn is_uncertain(&self) -> bool {
        self.columns.iter().any(|column| !column.certain)
    }
}

/// Describes a statement by preparing it on this connection; the caller holds the client's scope.
pub fn describe(
    connection: &Connection,
    statement: &Statement,
    declared: &[u32],
) -> Result<Metadata, ServerError> {
    match &statement.kind {
        Kind::Query | Kind::Pragma | Kind::Change => {
            let compiled = connection
                .prepare(&statement.sql)
                .map_err(|error| errors::from_preparing(&error, &statement.sql))?;
            describe_compiled(connection, statement, &compiled, declared)
        }
        Kind::Show(name) => Ok(Metadata::of_columns(vec![ResultColumn::certain(name, oid::TEXT)], true)),
        Kind::Setting(setting) => {
            Ok(Metadata::of_columns(vec![ResultColumn::certain(&setting.column, oid::TEXT)], true))
        }
        Kind::Admin(_) => Ok(Metadata::of_columns(admin_columns(), true)),
        _ => Ok(Metadata::of_columns(Vec::new(), false)),
    }
}

/// The columns of ADMIN COMMAND.
pub fn admin_columns() -> Vec<ResultColumn> {
    vec![ResultColumn::certain("RC", oid::INT4), ResultColumn::certain("TEXT", oid::VARCHAR)]
}

/// Describes a statement that is prepared already.
pub fn describe_compiled(
    connection: &Connection,
    statement: &Statement,
    compiled: &Compiled<'_>,
    declared: &[u32],
) -> Result<Metadata, ServerError> {
    let parameter_places = parameter_places(compiled)?;
    let count = parameter_places.iter().map(|place| place + 1).max().unwrap_or(0);
    let mut parameters = declared.to_vec();
    parameters.iter_mut().filter(|oid| **oid == oid::UNKNOWN).for_each(|oid| *oid = 0);
    parameters.resize(count.max(declared.len()), 0);
    let mut columns: Vec<ResultColumn> = compiled
        .columns()
        .map(|column| ResultColumn {
            name: column.name().to_string(),
            kind: pgtypes::of_declaration(column.decl_type().unwrap_or_default()),
            certain: column.decl_type().is_some(),
        })
        .collect();
    enlarge_serials(connection, compiled, &mut columns);
    let mut operands = vec![false; parameters.len()];
    let asked = |oid: &u32| *oid == 0 || *oid == oid::NUMERIC;
    if parameters.iter().any(asked) || columns.iter().any(|column| !column.certain) {
        let tokens = lexer::tokens(&statement.sql);
        let mut inference = Inference::new(connection, &statement.sql, &tokens);
        operands = inference.parameters(&mut parameters);
        let guessed = inference.results(columns.len(), &parameters);
        for (column, oid) in
            columns.iter_mut().zip(guessed).filter(|(column, oid)| !column.certain && *oid != 0)
        {
            column.kind = pgtypes::of_oid(oid);
            column.certain = true;
        }
    }
    let mut metadata = Metadata::of_columns(columns, compiled.readonly());
    let operands = operands.into_iter().chain(std::iter::repeat(false));
    metadata.parameters = parameters
        .into_iter()
        .zip(operands)
        .map(|(oid, operand)| Parameter { oid, kind: pgtypes::of_oid(oid), operand })
        .collect();
    metadata.parameter_places = parameter_places;
    Ok(metadata)
}

/// What stands for a bigserial is INTEGER to SQLite, and larger than that.
fn enlarge_serials(connection: &Connection, compiled: &Compiled<'_>, columns: &mut [ResultColumn]) {
    let may_be = |column: &Column<'_>| column.decl_type().is_some_and(may_be_big_serial);
    if !compiled.columns().any(|column| may_be(&column)) {
        return;
    }
    let origins: Vec<_> = compiled.columns_with_metadata().collect();
    let mut known = HashMap::new();
    for ((column, declared), origin) in columns.iter_mut().zip(compiled.columns()).zip(&origins) {
        let (true, Some(schema), Some(table), Some(name)) =
            (may_be(&declared), origin.database_name(), origin.table_name(), origin.origin_name())
        else {
            continue;
        };
        let big = known.entry((schema, table)).or_insert_with(|| big_serials(connection, schema, table));
        if big.contains(name) {
            column.kind = pgtypes::of_oid(oid::INT8);
        }
    }
}

/// For each of SQLite's parameters, which `$n` it is, from 0. Other spellings are refused: what drivers of other
/// databases send as `?` would otherwise silently be NULL.
fn parameter_places(compiled: &Compiled<'_>) -> Result<Vec<usize>, ServerError> {
    (1..=compiled.parameter_count())
        .map(|index| {
            let name = compiled.parameter_name(index).unwrap_or("?");
            let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            match number.filter(|number| (1..=65535).contains(number)) {
                Some(number) => Ok(number - 1),
                None => Err(syntax(format!("parameter {name}: parameters are written $1, $2, …"))),
            }
        })
        .collect()
}

/// Refuses parameters where the client can give no values for them.
pub fn refuse_parameters(compiled: &Compiled<'_>) -> Result<(), ServerError> {
    match parameter_places(compiled)?.first() {
        None => Ok(()),
        Some(place) => Err(no_parameter(*place)),
    }
}

/// A parameter, counted from 0, that has no value.
pub fn no_parameter(place: usize) -> ServerError {
    ServerError::sql("42P02", format!("there is no parameter ${}", place + 1))
}
