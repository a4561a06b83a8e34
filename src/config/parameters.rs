//! The values in force.
//!
//! Shared by Arc: whoever acts by a parameter reads it when it matters, so a change is in force at once; who cannot is told by
//! `operations::parameters`. Numbers are read without a lock, texts under a short one. Not here: typed getters (`getters`),
//! rewriting the file (`write_back`). Invariants: every value held has passed its check, alone and together with the others;
//! a change of an RW/Startup or RW/Create parameter is remembered for the file and never changes the value in force.

use super::address::ConnectString;
use super::doubts::{carried_over, doubts};
use super::getters::listen_address;
use super::invalid;
use super::kind::{self, Checked, Kind};
use super::parser::{self, Entry};
use super::registry::{self, ALIASES, Access, Id, REGISTRY};
use crate::error::ServerError;
use crate::random;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// Name of the file in the server's directory.
pub const FILE_NAME: &str = "solid.ini";
/// A longer solid.ini is refused.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// All parameters of a server.
pub struct Parameters {
    pub(super) directory: PathBuf,
    pub(super) values: RwLock<Vec<Value>>,
    /// The numbers in force, once more: for readers that do not wait.
    numbers: Vec<AtomicU64>,
    /// Held while solid.ini is rewritten.
    pub(super) file: Mutex<()>,
    has_hotstandby_section: bool,
    node_id: [u8; 16],
    /// [Data Sources]: logical names and what stands behind them.
    data_sources: Vec<(String, String)>,
}

/// One parameter's values.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) current: Checked,
    startup: Checked,
    /// From the next start on.
    next: Option<Checked>,
    /// To be written to solid.ini.
    pub(super) unwritten: Option<String>,
}

/// A parameter as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParameterRow {
    /// Section.
    pub section: &'static str,
    /// Name.
    pub name: &'static str,
    /// Value in force.
    pub current: String,
    /// Value at the start of the server.
    pub startup: String,
    /// Value if nothing is set.
    pub factory: &'static str,
    /// Value from the next start on, if it differs.
    pub next: Option<String>,
    /// When a change takes effect.
    pub access: Access,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetOutcome {
    /// When it takes effect.
    pub access: Access,
    /// True: the value is remembered, and that is all.
    pub is_unused: bool,
}

impl Parameters {
    /// Reads solid.ini of this directory; without a file, all values are factory values. Also gives warnings for the
    /// message log.
    pub fn load(directory: &Path) -> Result<(Parameters, Vec<String>), ServerError> {
        let path = directory.join(FILE_NAME);
        let text = read_file(&path)?.unwrap_or_default();
        Parameters::from_text(directory, &text)
    }

    /// As [`Parameters::load`], from a text that stands for solid.ini.
    pub fn from_text(directory: &Path, text: &str) -> Result<(Parameters, Vec<String>), ServerError> {
        let shown = directory.join(FILE_NAME).display().to_string();
        let parsed = parser::parse(text)
            .map_err(|error| invalid(format!("{shown}, line {}: {}.", error.line, error.problem)))?;
        let mut warnings = Vec::new();
        let mut checked: Vec<Checked> = REGISTRY.iter().map(factory_value).collect();
        let mut lines: Vec<Option<usize>> = vec![None; REGISTRY.len()];
        let is_data_source = |section: &str| section.eq_ignore_ascii_case(registry::DATA_SOURCES);
        let unknown =
            |section: &&(String, usize)| !registry::is_section(&section.0) && !is_data_source(&section.0);
        for (section, line) in parsed.sections.iter().filter(unknown) {
            let nearest = registry::nearest_section(section);
            warnings.push(format!("{shown}, line {line}: unknown section [{section}] is ignored; the nearest known one is [{nearest}]."));
        }
        for entry in parsed.entries.iter().filter(|entry| registry::is_section(&entry.section)) {
            let Some(id) = Id::find(&entry.section, &entry.name) else {
                warnings.push(unknown_name(&shown, entry));
                continue;
            };
            warnings.extend(alias_warning(&shown, entry));
            warnings.extend(lines[id as usize].map(|before| {
                format!(
                    "{shown}, line {}: {id} stands in line {before} already; this line counts.",
                    entry.line
                )
            }));
            warnings
                .extend(carried_over(id, entry).map(|text| format!("{shown}, line {}: {text}", entry.line)));
            checked[id as usize] = check_entry(id, entry, &shown)?;
            lines[id as usize] = Some(entry.line);
        }
        check_together(&|id| &checked[id as usize]).map_err(|(id, problem)| {
            let line = lines[id as usize].map_or(String::new(), |line| format!(", line {line}"));
            invalid(format!("{shown}{line}: {}", together_text(id, &checked[id as usize], &problem)))
        })?;
        warnings
            .extend(doubts(&|id| &checked[id as usize]).into_iter().map(|doubt| format!("{shown}: {doubt}")));
        let has_hotstandby_section =
            parsed.sections.iter().any(|section| section.0.eq_ignore_ascii_case("HotStandby"));
        let numbers = checked.iter().map(|value| AtomicU64::new(value.number)).collect();
        let values = checked
            .into_iter()
            .map(|value| Value { current: value.clone(), startup: value, next: None, unwritten: None })
            .collect();
        let parameters = Parameters {
            directory: directory.to_path_buf(),
            values: RwLock::new(values),
            numbers,
            file: Mutex::new(()),
            has_hotstandby_section,
            node_id: random::bytes()?,
            data_sources: parsed
                .entries
                .into_iter()
                .filter(|entry| is_data_source(&entry.section))
                .map(|entry| (entry.name, entry.value))
                .collect(),
        };
        if parameters.hsb_enabled() {
            parameters.peer_secret()?;
        }
        Ok((parameters, warnings))
    }

    /// Factory values, without a file.
    pub fn factory(directory: &Path) -> Result<Parameters, ServerError> {
        Parameters::from_text(directory, "").map(|loaded| loaded.0)
    }

    /// General.Diskless=yes, whatever solid.ini says: the command line wants it.
    pub fn make_diskless(&mut self) {
        let values = self.values.get_mut().unwrap_or_else(PoisonError::into_inner);
        let value = &mut values[Id::Diskless as usize];
        value.current = Checked { text: "yes".into(), number: 1 };
        value.startup = value.current.clone();
        *self.numbers[Id::Diskless as usize].get_mut() = 1;
    }

    /// The directory of solid.ini, to which every relative path belongs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// True if solid.ini has a \[HotStandby\] section (a database of a pair must not start without one, 14543).
    pub fn has_hotstandby_section(&self) -> bool {
        self.has_hotstandby_section
    }

    /// Random, drawn when solid.ini is read: by it a server knows itself when it has dialled its own port.
    pub fn node_id(&self) -> [u8; 16] {
        self.node_id
    }

    /// The connect string of a logical name in [Data Sources], without the description behind its comma.
    pub fn data_source(&self, name: &str) -> Option<&str> {
        let found = self.data_sources.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.split(',').next().unwrap_or_default().trim())
    }

    /// The database was made with another page size than solid.ini has now: what the file has is in force, what solid.ini
    /// has waits for the next new database.
    pub fn adopt_page_size(&self, bytes: u32) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let value = &mut values[Id::PageSize as usize];
        if value.current.number != u64::from(bytes) {
            let wanted = value.next.take().unwrap_or_else(|| value.current.clone());
            let found = Checked { text: kind::show_size(u64::from(bytes)), number: u64::from(bytes) };
            value.startup = found.clone();
            value.next = Some(wanted);
            self.put(Id::PageSize, value, found);
        }
    }

    /// The text in force.
    pub fn text(&self, id: Id) -> String {
        self.values.read().unwrap_or_else(PoisonError::into_inner)[id as usize].current.text.clone()
    }

    /// The number in force: bytes, the parameter's own unit, 0 or 1 for no and yes, or the index of a choice.
    pub fn number(&self, id: Id) -> u64 {
        self.numbers[id as usize].load(Ordering::Acquire)
    }

    /// True for yes.
    pub fn flag(&self, id: Id) -> bool {
        self.number(id) == 1
    }

    /// In force from now on.
    pub(super) fn put(&self, id: Id, value: &mut Value, current: Checked) {
        self.numbers[id as usize].store(current.number, Ordering::Release);
        value.current = current;
    }

    /// One parameter, by section and name in any letter case.
    pub fn get(&self, section: &str, name: &str) -> Option<ParameterRow> {
        Id::find(section, name).map(|id| self.row(id))
    }

    /// All parameters, or those of one section.
    pub fn list(&self, section: Option<&str>) -> Vec<ParameterRow> {
        let wanted =
            |id: &&Id| section.is_none_or(|section| id.definition().section.eq_ignore_ascii_case(section));
        Id::ALL.iter().filter(wanted).map(|id| self.row(*id)).collect()
    }

    fn row(&self, id: Id) -> ParameterRow {
        let definition = id.definition();
        let shown = |value: &Checked| match definition.kind {
            Kind::Secret if !value.text.is_empty() => "********".to_owned(),
            _ => value.text.clone(),
        };
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        let value = &values[id as usize];
        ParameterRow {
            section: definition.section,
            name: definition.name,
            current: shown(&value.current),
            startup: shown(&value.startup),
            factory: definition.factory,
            next: value.next.as_ref().filter(|next| **next != value.current).map(shown),
            access: definition.access,
        }
    }

    /// Changes a parameter; `*` means the factory value. Unless `temporary`, the next [`Parameters::write_back`] puts
    /// it into solid.ini.
    pub fn set(
        &self,
        section: &str,
        name: &str,
        value: &str,
        temporary: bool,
    ) -> Result<SetOutcome, ServerError> {
        let id = Id::find(section, name).ok_or_else(|| unknown_parameter(section, name))?;
        let definition = id.definition();
        let takes_effect_at_start = match definition.access {
            Access::ReadOnly => {
                return Err(invalid(format!(
                    "{id} is read only; change it in solid.ini and start the server again."
                )));
            }
            Access::Immediate => false,
            Access::Startup | Access::Create => true,
        };
        if takes_effect_at_start && temporary {
            return Err(invalid(format!(
                "{id} takes effect with {} only, so it cannot be temporary.",
                definition.access.waits_for()
            )));
        }
        let checked = self.check(id, value)?;
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut values[id as usize];
        if !temporary {
            slot.unwritten = Some(checked.text.clone());
        }
        if takes_effect_at_start {
            slot.next = Some(checked);
        } else {
            self.put(id, slot, checked);
        }
        Ok(SetOutcome { access: definition.access, is_unused: registry::NOT_USED.contains(&id) })
    }

    /// Checks a value by itself and together with the others; `*` means the factory value.
    pub(super) fn check(&self, id: Id, value: &str) -> Result<Checked, ServerError> {
        let definition = id.definition();
        let wanted = if value.trim() == "*" { definition.factory } else { value };
        let checked = definition
            .kind
            .check(wanted)
            .map_err(|allowed| impossible(id, &id.to_string(), wanted, &allowed))?;
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        let candidate = |other: Id| {
            let known = &values[other as usize];
            if other == id { &checked } else { known.next.as_ref().unwrap_or(&known.current) }
        };
        check_together(&candidate)
            .map_err(|(blamed, problem)| invalid(together_text(blamed, candidate(blamed), &problem)))?;
        drop(values);
        Ok(checked)
    }

    /// What a parameter is, in a few lines.
    pub fn describe(&self, section: &str, name: &str) -> Option<String> {
        let id = Id::find(section, name)?;
        let (definition, row) = (id.definition(), self.row(id));
        let mut lines = vec![
            format!("{id}{}", if definition.ours { " (HotStandby's own)" } else { "" }),
            definition.meaning.to_owned(),
            format!("Allowed: {}", definition.kind.allowed()),
            format!("Access: {}", definition.access.name()),
            format!("Current: {}", row.current),
            format!("Startup: {}", row.startup),
            format!("Factory: {}", row.factory),
        ];
        lines.extend(row.next.map(|next| format!("Waiting for {}: {next}", definition.access.waits_for())));
        lines.extend(definition.notes(id).map(str::to_owned));
        Some(lines.join("\n"))
    }
}

/// The text of a file; none if there is no such file.
pub(super) fn read_file(path: &Path) -> Result<Option<String>, ServerError> {
    let failed = |problem: String| invalid(format!("{}: {problem}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("cannot be read: {error}."))),
        Ok(metadata) if !metadata.is_file() => return Err(failed("is not a file.".to_owned())),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(failed("is too long to be a solid.ini.".to_owned()));
        }
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}.")))?;
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        invalid(format!("{}, line {line}: not UTF-8 text.", path.display()))
    })
}

fn factory_value(definition: &registry::Definition) -> Checked {
    // A test holds every factory value to its kind; the fallback keeps this free of panics.
    let text = definition.factory.to_owned();
    definition.kind.check(&text).unwrap_or(Checked { text, number: 0 })
}

fn check_entry(id: Id, entry: &Entry, file: &str) -> Result<Checked, ServerError> {
    let Entry { section, name, value, line, .. } = entry;
    let place = format!("{file}, line {line}: {section}.{name}");
    id.definition().kind.check(value).map_err(|allowed| impossible(id, &place, value, &allowed))
}

/// A value that is not allowed; `place`: where it stands. A connect string has codes of its own.
fn impossible(id: Id, place: &str, value: &str, allowed: &str) -> ServerError {
    let wanted = id.definition().kind;
    let address = match wanted {
        Kind::Address { .. } => ConnectString::parse(value).err(),
        Kind::Listen => kind::first_address(value).err(),
        _ => None,
    };
    if let Some(error) = address {
        let text = format!("{place}: {}", error.message());
        return error.saying(text);
    }
    let shown = if wanted == Kind::Secret { "********" } else { value };
    invalid(format!("{place}: '{shown}' is not possible; allowed: {allowed}."))
}

fn unknown_name(shown: &str, entry: &Entry) -> String {
    let Entry { section, name, line, .. } = entry;
    if section.eq_ignore_ascii_case("IndexFile") && name.to_ascii_lowercase().starts_with("filespec_") {
        return format!(
            "{shown}, line {line}: {section}.{name} is ignored: the database is one file, {}.",
            Id::DatabaseFile
        );
    }
    let nearest = Id::nearest(section, name);
    format!(
        "{shown}, line {line}: unknown parameter {section}.{name} is ignored; the nearest known one is {nearest}."
    )
}

fn alias_warning(shown: &str, entry: &Entry) -> Option<String> {
    let alias = ALIASES.iter().find(|alias| {
        alias.1.eq_ignore_ascii_case(&entry.name) && alias.0.eq_ignore_ascii_case(&entry.section)
    })?;
    let new_name = alias.2.definition().name;
    Some(format!(
        "{shown}, line {}: {}.{} is an old name of {new_name}.",
        entry.line, entry.section, entry.name
    ))
}

fn unknown_parameter(section: &str, name: &str) -> ServerError {
    invalid(format!("There is no parameter {section}.{name}; the nearest is {}.", Id::nearest(section, name)))
}

fn together_text(id: Id, value: &Checked, problem: &str) -> String {
    format!("{id}: '{}' is not possible; {problem}.", value.text)
}

/// Rules that bind several parameters; the error names the one to blame and what is allowed.
fn check_together<'a>(value: &dyn Fn(Id) -> &'a Checked) -> Result<(), (Id, String)> {
    let page = value(Id::PageSize).number.max(1);
    if !value(Id::BackupBlockSize).number.is_multiple_of(page) {
        return Err((
            Id::BackupBlockSize,
            format!("allowed: a multiple of IndexFile.BlockSize ({page} bytes)"),
        ));
    }
    if value(Id::LogBlockSize).number > value(Id::MinSplitSize).number {
        return Err((Id::LogBlockSize, "allowed: at most Logging.MinSplitSize".to_owned()));
    }
    let digit = &value(Id::DigitTemplateChar).text;
    let digits = value(Id::FileNameTemplate).text.matches(digit.as_str()).count();
    if !(4..=10).contains(&digits) {
        return Err((
            Id::FileNameTemplate,
            format!("allowed: a file name with 4 to 10 digit characters '{digit}'"),
        ));
    }
    let beyond = !listen_address(value(Id::Listen), value(Id::ReadTimeout)).is_loopback();
    if beyond && value(Id::HsbEnabled).number == 1 && value(Id::PeerSecretFile).text.is_empty() {
        let rule = "a HotStandby server that listens beyond this machine needs HotStandby.PeerSecretFile";
        return Err((Id::Listen, rule.to_owned()));
    }
    Ok(())
}
