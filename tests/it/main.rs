//! The tests that run whole servers: processes, embedded nodes, clients, and the documents that are checked against them.
//! One program for all of them: SQLite is linked once, and they run beside each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod back_pressure;
mod bad_input;
mod checkpoints;
mod clients;
mod clients_compatibility;
mod codes;
mod commands_document;
mod common;
mod copies;
mod cut_statements;
mod disk_full;
mod diskless;
mod durability;
mod events;
mod failover;
mod hostile_sql;
mod in_doubt;
mod links;
mod log_size;
mod long_readers;
mod message_log;
mod netcopy_requests;
mod network_namespaces;
mod outcome_tokens;
mod outcomes;
mod outside_programs;
mod own_files;
mod parameter_effects;
mod parameters;
mod replication;
mod responsiveness;
mod rewind;
mod session_settings;
mod solcon;
mod statement_memory;
mod states_document;
mod status_and_verify;
mod traps;
mod traps_process;
mod two_primaries;
mod users;
mod watchdog;
