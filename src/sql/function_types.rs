//! What is known of functions by their names: the type of what they give, the types that their arguments want, and whether a
//! DEFAULT may call them. SQLite's have a row here, the server's have theirs in `storage::functions`.

use super::functions::server_function;
use crate::pgtypes::oid;
use crate::storage::functions::Places;

/// The type of a function's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// This one.
    Type(u32),
    /// The one that its arguments agree on.
    WhatArgumentsAre,
    /// A number made of its arguments, which are numbers.
    Number,
    /// The one that is named in it.
    Cast,
    /// It depends.
    Unknown,
}

/// What a parameter is that is an argument of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Anything, so it is a text.
    Anything,
    /// A number.
    Number,
    /// A number, and behind it whole numbers.
    NumberThenWhole,
    /// Whole numbers.
    Whole,
    /// Anything, and behind it whole numbers.
    AnythingThenWhole,
    /// What the other arguments are, or what is beside the call: one of them is passed on.
    WhatOthersAre,
    /// A condition, and behind it what the others there are.
    ConditionThenOthers,
}

struct SqliteFunction {
    name: &'static str,
    gives: Gives,
    takes: Takes,
    in_default: bool,
}

impl SqliteFunction {
    /// SQLite asks only at an INSERT whether a function is there; this one is.
    const fn in_default(self) -> SqliteFunction {
        SqliteFunction { in_default: true, ..self }
    }
}

const fn row(name: &'static str, gives: Gives, takes: Takes) -> SqliteFunction {
    SqliteFunction { name, gives, takes, in_default: false }
}

const fn text(name: &'static str) -> SqliteFunction {
    row(name, Gives::Type(oid::TEXT), Takes::Anything)
}

const fn whole(name: &'static str) -> SqliteFunction {
    row(name, Gives::Type(oid::INT8), Takes::Anything)
}

const fn floating(name: &'static str) -> SqliteFunction {
    row(name, Gives::Type(oid::FLOAT8), Takes::Anything)
}

static TABLE: [SqliteFunction; 50] = [
    row("abs", Gives::Number, Takes::Number).in_default(),
    row("avg", Gives::Type(oid::FLOAT8), Takes::Number),
    row("cast", Gives::Cast, Takes::Anything).in_default(),
    whole("changes"),
    row("char", Gives::Unknown, Takes::Whole),
    row("coalesce", Gives::WhatArgumentsAre, Takes::WhatOthersAre).in_default(),
    whole("count"),
    floating("cume_dist"),
    text("date").in_default(),
    text("datetime").in_default(),
    whole("dense_rank"),
    row("exists", Gives::Type(oid::BOOL), Takes::Anything),
    text("format"),
    text("group_concat"),
    text("hex").in_default(),
    row("if", Gives::Unknown, Takes::ConditionThenOthers),
    row("ifnull", Gives::WhatArgumentsAre, Takes::WhatOthersAre),
    row("iif", Gives::Unknown, Takes::ConditionThenOthers),
    whole("instr"),
    whole("json_array_length"),
    floating("julianday"),
    whole("last_insert_rowid"),
    whole("length"),
    text("lower").in_default(),
    row("max", Gives::WhatArgumentsAre, Takes::WhatOthersAre),
    row("min", Gives::WhatArgumentsAre, Takes::WhatOthersAre),
    whole("ntile"),
    row("nullif", Gives::Unknown, Takes::WhatOthersAre),
    whole("octet_length"),
    floating("percent_rank"),
    text("printf"),
    text("quote"),
    whole("random").in_default(),
    row("randomblob", Gives::Unknown, Takes::Whole).in_default(),
    whole("rank"),
    text("replace"),
    row("round", Gives::Type(oid::FLOAT8), Takes::NumberThenWhole),
    whole("row_number"),
    text("strftime").in_default(),
    row("substr", Gives::Type(oid::TEXT), Takes::AnythingThenWhole),
    row("substring", Gives::Unknown, Takes::AnythingThenWhole),
    row("sum", Gives::Number, Takes::Number),
    text("time"),
    row("total", Gives::Type(oid::FLOAT8), Takes::Number),
    text("trim"),
    text("typeof"),
    whole("unicode"),
    whole("unixepoch").in_default(),
    text("upper").in_default(),
    row("zeroblob", Gives::Unknown, Takes::Whole),
];

fn sqlite_function(name: &str) -> Option<&'static SqliteFunction> {
    TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}

/// The type of a function's value.
pub fn gives(name: &str) -> Gives {
    match server_function(name) {
        Some(row) if row.gives != 0 => Gives::Type(row.gives),
        Some(_) => Gives::Unknown,
        None => sqlite_function(name).map_or(Gives::Unknown, |row| row.gives),
    }
}

/// What its arguments want.
pub fn takes(name: &str) -> Takes {
    sqlite_function(name).map_or(Takes::Anything, |row| row.takes)
}

/// Whether a DEFAULT may call it.
pub fn may_stand_in_default(name: &str) -> bool {
    match server_function(name) {
        Some(row) => row.places != Places::Queries,
        None => sqlite_function(name).is_some_and(|row| row.in_default),
    }
}

/// Whether PostgreSQL calls it without parentheses.
pub fn is_called_as_a_word(name: &str) -> bool {
    server_function(name).is_some_and(|row| row.places == Places::Word)
}
