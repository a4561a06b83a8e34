//! What is known of a statement once it is prepared, computed once and used at every execution.

use rusqlite::{Connection, Statement as Compiled};

use super::errors;
use super::infer::Inference;
use super::lexer;
use super::statement::{Kind, Statement, syntax};
use super::types;
use crate::error::ServerError;
use crate::net::pg::codec;

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type that the client is told.
    pub oid: u32,
    /// Declared or recognised; otherwise the first value may decide.
    pub certain: bool,
}

/// All that execution needs to know besides the text.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// SQLite says that it changes nothing.
    pub readonly: bool,
    /// Result columns; empty for statements without rows.
    pub columns: Vec<Column>,
    /// A RowDescription message with all formats text; empty without columns.
    description: Vec<u8>,
    /// Where the formats stand in it.
    format_places: Vec<usize>,
    /// Types of `$1`, `$2`, …; 0 where unknown.
    pub parameters: Vec<u32>,
    /// Which of them are compared or calculated with: a number is bound as one, however it is written.
    pub operands: Vec<bool>,
    /// For each of SQLite's parameters, which of the client's it is, from 0.
    pub parameter_places: Vec<usize>,
}

impl Metadata {
    /// Metadata of a statement with these columns and no parameters.
    pub fn of_columns(columns: Vec<Column>, readonly: bool) -> Metadata {
        let (description, format_places) = describe_row(&columns);
        Metadata {
            readonly,
            columns,
            description,
            format_places,
            parameters: Vec::new(),
            operands: Vec::new(),
            parameter_places: Vec::new(),
        }
    }

    /// True if some column's type may be refined by its first value.
    pub fn is_uncertain(&self) -> bool {
        self.columns.iter().any(|column| !column.certain)
    }

    /// Appends RowDescription with these formats, or NoData.
    pub fn append_description(&self, out: &mut Vec<u8>, formats: &codec::Formats) {
        if self.columns.is_empty() {
            codec::empty_message(out, b'n');
            return;
        }
        let start = out.len();
        out.extend_from_slice(&self.description);
        for (index, place) in self.format_places.iter().enumerate() {
            out[start + place + 1] = formats.is_binary(index) as u8;
        }
    }
}

fn describe_row(columns: &[Column]) -> (Vec<u8>, Vec<usize>) {
    let mut message = Vec::with_capacity(columns.len() * 32);
    let mut places = Vec::with_capacity(columns.len());
    if !columns.is_empty() {
        let start = codec::begin(&mut message, b'T');
        message.extend_from_slice(&(columns.len() as i16).to_be_bytes());
        for column in columns {
            codec::text(&mut message, &column.name);
            message.extend_from_slice(&[0; 6]);
            message.extend_from_slice(&column.oid.to_be_bytes());
            message.extend_from_slice(&types::size_of(column.oid).to_be_bytes());
            message.extend_from_slice(&(-1i32).to_be_bytes());
            places.push(message.len());
            message.extend_from_slice(&[0; 2]);
        }
        codec::finish(&mut message, start);
    }
    (message, places)
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
        Kind::Show(name) => Ok(Metadata::of_columns(vec![certain(name, types::TEXT)], true)),
        Kind::Setting(setting) => Ok(Metadata::of_columns(vec![certain(&setting.column, types::TEXT)], true)),
        Kind::Admin(_) => Ok(Metadata::of_columns(admin_columns(), true)),
        _ => Ok(Metadata::of_columns(Vec::new(), false)),
    }
}

fn certain(name: &str, oid: u32) -> Column {
    Column { name: name.to_string(), oid, certain: true }
}

/// The columns of ADMIN COMMAND.
pub fn admin_columns() -> Vec<Column> {
    vec![certain("RC", types::INT4), certain("TEXT", types::VARCHAR)]
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
    parameters.iter_mut().filter(|oid| **oid == types::UNKNOWN).for_each(|oid| *oid = 0);
    parameters.resize(count.max(declared.len()), 0);
    let mut columns: Vec<Column> = compiled
        .columns()
        .map(|column| match column.decl_type() {
            Some(declaration) => certain(column.name(), types::oid_of_declaration(declaration)),
            None => Column { name: column.name().to_string(), oid: types::TEXT, certain: false },
        })
        .collect();
    let mut operands = vec![false; parameters.len()];
    let asked = |oid: &u32| *oid == 0 || *oid == types::NUMERIC;
    if parameters.iter().any(asked) || columns.iter().any(|column| !column.certain) {
        let tokens = lexer::tokens(&statement.sql);
        let mut inference = Inference::new(connection, &statement.sql, &tokens);
        operands = inference.parameters(&mut parameters);
        let guessed = inference.results(columns.len(), &parameters);
        for (column, oid) in
            columns.iter_mut().zip(guessed).filter(|(column, oid)| !column.certain && *oid != 0)
        {
            column.oid = oid;
            column.certain = true;
        }
    }
    let mut metadata = Metadata::of_columns(columns, compiled.readonly());
    metadata.parameters = parameters;
    metadata.operands = operands;
    metadata.parameter_places = parameter_places;
    Ok(metadata)
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
