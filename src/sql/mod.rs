//! What an SQL session is: kinds of statements, settings, transactions, users, our functions, access rules.
//!
//! Not here: the bytes on the wire (`net::pg`) and how writes are ordered and replicated (the writer).

pub mod access;
pub mod arithmetic;
pub mod columns;
pub mod cut_trigger;
pub mod derived;
pub mod describe;
pub mod errors;
pub mod execute;
pub mod function_types;
pub mod functions;
pub mod infer;
pub mod known_settings;
pub mod lexer;
pub mod operands;
pub mod rewrite;
pub mod rows;
pub mod session;
pub mod set_statement;
pub mod settings;
pub mod split;
pub mod statement;
pub mod user_statement;
pub mod users;
