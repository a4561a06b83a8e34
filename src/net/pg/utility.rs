//! Statements about the session itself: transactions, settings, admin commands.

use rusqlite::types::ValueRef;

use super::codec::{self, Formats};
use super::connection::Client;
use super::rows::{DataRows, Outlet};
use super::simple::Completion;
use crate::error::ServerError;
use crate::hsb::settings::{Durability, Safeness};
use crate::pgtypes::{oid, truth};
use crate::sql::describe::{self, ResultColumn};
use crate::sql::known_settings;
use crate::sql::rows::RowSink;
use crate::sql::set_statement::{Isolation, Scope, SetCommand, SettingQuery, TransactionModes};
use crate::sql::statement::{Kind, Statement};

fn done(tag: &'static str) -> Result<Completion, ServerError> {
    Ok(Completion { tag, count: None })
}

impl Client<'_> {
    /// Carries one out; `describe`: rows are preceded by their description.
    pub(super) fn utility(
        &mut self,
        statement: &Statement,
        formats: &Formats,
        describe: bool,
    ) -> Result<Completion, ServerError> {
        let tag = statement.tag;
        match &statement.kind {
            Kind::Begin(modes) => {
                if !self.session.begin(*modes) {
                    codec::notice(&mut self.out, "25001", "there is already a transaction in progress");
                }
                done(tag)
            }
            Kind::Commit | Kind::Rollback | Kind::Savepoint(_) | Kind::RollbackTo(_) | Kind::Release(_) => {
                self.transaction_control(&statement.kind, tag)
            }
            Kind::Admin(text) => self.admin(text, formats, describe),
            Kind::Set(command) => self.set(command, tag),
            Kind::Show(name) => self.show(name, formats, describe),
            Kind::Reset(name) => {
                self.reset(name.as_deref())?;
                done(tag)
            }
            Kind::Discard => {
                self.discard_all()?;
                done(tag)
            }
            Kind::Deallocate(name) => {
                match name {
                    None => self.statements.clear(),
                    Some(name) => drop(self.statements.remove(name)),
                }
                done(tag)
            }
            Kind::Setting(query) => self.setting_query(query, formats, describe),
            Kind::CloseAll => done(tag),
            Kind::Unlisten(channel) => {
                self.listening.unlisten(channel.as_deref());
                done(tag)
            }
            Kind::Listen(channel) => {
                if let Some(warning) = self.listening.listen(channel)? {
                    codec::notice(&mut self.out, "01000", &warning);
                }
                done(tag)
            }
            Kind::Skipped(why) => {
                codec::notice(&mut self.out, "00000", why);
                done(tag)
            }
            Kind::Refused(why) => Err(ServerError::sql("0A000", *why)),
            _ => Err(ServerError::sql("0A000", "this statement is not supported here")),
        }
    }

    fn is_in_block(&self) -> bool {
        self.session.in_transaction() && !self.session.is_implicit()
    }

    fn reset(&mut self, name: Option<&str>) -> Result<(), ServerError> {
        let is_in_block = self.is_in_block();
        let settings = &mut self.session.settings;
        match name {
            Some("safeness") => settings.safeness = Safeness::Default,
            Some("durability") => settings.durability = Durability::Default,
            Some("lock timeout") => settings.lock_timeout = None,
            Some("idle timeout") => settings.idle_timeout = None,
            Some("statement maxtime") => settings.statement_max_time = None,
            Some(name) => self.set_generic(name, None, false)?,
            None => {
                if is_in_block {
                    settings.remember("", false);
                }
                settings.reset_all();
            }
        }
        self.settings_changed = true;
        Ok(())
    }

    fn discard_all(&mut self) -> Result<(), ServerError> {
        if self.is_in_block() {
            return Err(ServerError::sql("25001", "DISCARD ALL cannot run inside a transaction block"));
        }
        self.statements.clear();
        self.portals.clear();
        self.listening.unlisten(None);
        self.session.settings.reset_all();
        self.settings_changed = true;
        Ok(())
    }

    fn transaction_control(&mut self, kind: &Kind, tag: &'static str) -> Result<Completion, ServerError> {
        if !self.session.in_transaction() && matches!(kind, Kind::Commit | Kind::Rollback) {
            codec::notice(&mut self.out, "25P01", "there is no transaction in progress");
            return done(tag);
        }
        match kind {
            Kind::Commit => {
                self.portals.clear();
                let committed = self.session.commit();
                self.session.settings.end_transaction(matches!(committed, Ok(true)));
                self.settings_changed = true;
                return done(if committed? { tag } else { "ROLLBACK" });
            }
            Kind::Rollback => {
                self.portals.clear();
                self.session.rollback();
                self.session.settings.end_transaction(false);
                self.settings_changed = true;
            }
            Kind::Savepoint(name) => self.session.savepoint(name)?,
            Kind::RollbackTo(name) => {
                self.portals.clear();
                self.session.rollback_to(name)?;
            }
            Kind::Release(name) => self.session.release(name)?,
            _ => {}
        }
        done(tag)
    }

    fn admin(&mut self, text: &str, formats: &Formats, describe: bool) -> Result<Completion, ServerError> {
        let (role, user) = (self.session.role, self.session.identity.user.clone());
        let Some(rights) = role.rights() else {
            let text = "ADMIN COMMAND needs SYS_ADMIN_ROLE or SYS_CONSOLE_ROLE";
            return Err(ServerError::sql("42501", text));
        };
        let answers = self.session.context.admin.execute(&user, rights, text);
        let columns = describe::admin_columns();
        let rows = answers
            .iter()
            .map(|(code, text)| [ValueRef::Integer(i64::from(*code)), ValueRef::Text(text.as_bytes())]);
        self.give_rows(&columns, rows, formats, describe)?;
        Ok(Completion { tag: "ADMIN COMMAND", count: None })
    }

    /// Appends rows that the session makes itself; `describe`: preceded by their description.
    fn give_rows<'v, const N: usize>(
        &mut self,
        columns: &[ResultColumn],
        given: impl IntoIterator<Item = [ValueRef<'v>; N]>,
        formats: &Formats,
        describe: bool,
    ) -> Result<(), ServerError> {
        let mut rows = DataRows::new(std::mem::take(&mut self.out), formats.clone(), Outlet::Kept);
        if describe {
            rows.columns(columns);
        }
        let all = given.into_iter().try_for_each(|values| rows.give(columns, &values));
        self.out = rows.out;
        all
    }

    fn show(&mut self, name: &str, formats: &Formats, describe: bool) -> Result<Completion, ServerError> {
        let value = self.setting(name).ok_or_else(|| known_settings::unknown(name))?;
        let columns = [ResultColumn::certain(name, oid::TEXT)];
        self.give_rows(&columns, [[ValueRef::Text(value.as_bytes())]], formats, describe)?;
        done("SHOW")
    }

    fn setting_query(
        &mut self,
        query: &SettingQuery,
        formats: &Formats,
        describe: bool,
    ) -> Result<Completion, ServerError> {
        if let Some(value) = &query.value {
            self.set_generic(&query.name.to_lowercase(), Some(value), query.local)?;
        }
        let value = self.setting(&query.name);
        if value.is_none() && !query.missing_ok {
            return Err(known_settings::unknown(&query.name));
        }
        let columns = [ResultColumn::certain(&query.column, oid::TEXT)];
        let value = value.as_ref().map_or(ValueRef::Null, |value| ValueRef::Text(value.as_bytes()));
        self.give_rows(&columns, [[value]], formats, describe)?;
        Ok(Completion { tag: "SELECT", count: Some(1) })
    }

    fn set(&mut self, command: &SetCommand, tag: &'static str) -> Result<Completion, ServerError> {
        let writing = self.session.is_writing();
        let too_late = |what: &str| {
            ServerError::sql("25001", format!("SET TRANSACTION {what} must come before the first write"))
        };
        let settings = &mut self.session.settings;
        match command {
            SetCommand::Safeness(Scope::Session, safeness) => settings.safeness = *safeness,
            SetCommand::Safeness(Scope::Transaction, _) if writing => return Err(too_late("SAFENESS")),
            SetCommand::Safeness(Scope::Transaction, safeness) => {
                settings.next_transaction.safeness = Some(*safeness);
            }
            SetCommand::Durability(Scope::Session, durability) => settings.durability = *durability,
            SetCommand::Durability(Scope::Transaction, _) if writing => return Err(too_late("DURABILITY")),
            SetCommand::Durability(Scope::Transaction, durability) => {
                settings.next_transaction.durability = Some(*durability);
            }
            SetCommand::Modes(Scope::Session, modes) => {
                settings.isolation = modes.isolation.unwrap_or(settings.isolation);
                settings.read_only = modes.read_only.unwrap_or(settings.read_only);
                self.settings_changed = true;
            }
            SetCommand::Modes(Scope::Transaction, modes) => self.session.set_modes(*modes)?,
            SetCommand::LockTimeout(time) => settings.lock_timeout = *time,
            SetCommand::IdleTimeout(time) => settings.idle_timeout = *time,
            SetCommand::StatementMaxTime(time) => settings.statement_max_time = *time,
            SetCommand::Token(token) => self.session.set_token(token)?,
            SetCommand::Generic { name, value, local } => {
                self.set_generic(name, value.as_deref(), *local)?;
            }
        }
        done(tag)
    }

    fn set_generic(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<(), ServerError> {
        let mut modes = TransactionModes::default();
        match (name, value) {
            ("transaction_read_only", Some(text)) => modes.read_only = truth(text),
            ("transaction_isolation", Some(text)) => modes.isolation = Isolation::parse(text),
            _ => {
                let in_block = self.is_in_block();
                if local && !in_block {
                    codec::notice(&mut self.out, "25P01", "SET LOCAL can only be used in transaction blocks");
                    return Ok(());
                }
                if in_block {
                    self.session.settings.remember(name, local);
                }
                self.settings_changed = true;
                return self.session.settings.set(name, value);
            }
        }
        if modes == TransactionModes::default() {
            let text = format!("invalid value for parameter \"{name}\": \"{}\"", value.unwrap_or_default());
            return Err(ServerError::sql("22023", text));
        }
        self.session.set_modes(modes)
    }
}
