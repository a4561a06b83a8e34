//! Commands about parameters. Not here: what they are (`config`) and do.

use std::path::Path;

use super::{AdminServices, Call, Rows, one};
use crate::config::registry::nearest_section;
use crate::config::{Access, Id, ParameterRow};
use crate::error::{ServerError, invalid};

fn line(row: &ParameterRow) -> (u32, String) {
    // In quotes what could not be told from its neighbours.
    let shown = |value: &str| {
        let plain = !value.is_empty() && !value.contains(char::is_whitespace);
        if plain { value.to_owned() } else { format!("\"{value}\"") }
    };
    let values = [&row.current, &row.startup, row.factory].map(shown);
    let waiting = row
        .next
        .as_deref()
        .map_or(String::new(), |next| format!(" (waiting for {}: {})", row.access.waits_for(), shown(next)));
    (0, format!("{} {} {}{waiting}", row.section, row.name, values.join(" ")))
}

fn unknown(name: &str) -> ServerError {
    let nearest = match name.split_once('.') {
        Some((section, name)) => Id::nearest(section, name),
        None => nearest_section(name).to_owned(),
    };
    invalid(format!("There is no parameter '{name}'; the nearest is '{nearest}', and 'parameter' lists all."))
}

pub(super) fn show(services: &AdminServices, call: &Call) -> Rows {
    let name = call.rest.as_str();
    let rows: Vec<ParameterRow> = match name.split_once('.') {
        _ if name.is_empty() => services.node.parameters.list(None),
        Some((section, name)) => services.node.parameters.get(section, name).into_iter().collect(),
        None => services.node.parameters.list(Some(name)),
    };
    if rows.is_empty() { Err(unknown(name)) } else { Ok(rows.iter().map(line).collect()) }
}

pub(super) fn describe(services: &AdminServices, call: &Call) -> Rows {
    let parameters = &services.node.parameters;
    let name = call.rest.as_str();
    let described: Vec<String> = match name.split_once('.') {
        Some((section, name)) => parameters.describe(section, name).into_iter().collect(),
        None => {
            let section = Some(name).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("all"));
            let rows = parameters.list(section);
            rows.iter().filter_map(|row| parameters.describe(row.section, row.name)).collect()
        }
    };
    if described.is_empty() {
        return Err(unknown(name));
    }
    Ok(described.join("\n\n").lines().map(|line| (0, line.to_string())).collect())
}

pub(super) fn save(services: &AdminServices, call: &Call) -> Rows {
    match call.rest.as_str() {
        "" => {
            services.changes.save(None)?;
            one("The parameters were saved to solid.ini.")
        }
        file => {
            services.changes.save(Some(Path::new(file)))?;
            one(format!("The parameters were saved to {file}."))
        }
    }
}

pub(super) fn set(services: &AdminServices, call: &Call) -> Rows {
    let wrong = || invalid("It reads: parameter section.name=value [temporary].");
    let (name, value) = call.rest.split_once('=').ok_or_else(wrong)?;
    let (section, name) = name.trim().split_once('.').ok_or_else(wrong)?;
    let value = value.trim();
    let (value, temporary) = match value.rsplit_once(char::is_whitespace) {
        Some((value, last)) if last.eq_ignore_ascii_case("temporary") => (value.trim(), true),
        _ => (value, false),
    };
    change(services, (section.trim(), name.trim()), value, temporary)
}

/// `hsb parameter name value`, the older form.
pub(super) fn set_of_hotstandby(services: &AdminServices, call: &Call) -> Rows {
    let (name, value) = call.rest.split_once(char::is_whitespace).unwrap_or((&call.rest, ""));
    change(services, ("HotStandby", name), value.trim(), false)
}

fn change(services: &AdminServices, (section, name): (&str, &str), value: &str, temporary: bool) -> Rows {
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let outcome = services.changes.set(section, name, value, temporary)?;
    let when = match (outcome.is_unused, outcome.access) {
        (true, _) => "It has no effect in this server.".to_string(),
        (false, Access::Immediate) => "It is in effect.".to_string(),
        (false, access) => format!("It waits for {}.", access.waits_for()),
    };
    one(format!("{section}.{name} is set. {when}"))
}
