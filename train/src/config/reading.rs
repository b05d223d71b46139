//! From TOML texts to one table of settings: merging, what differs, and the nearest name for one that does not exist.

use super::fail;
use crate::{Error, Result};
use toml::{Table, Value};

/// A file's text with overrides on top.
pub(super) fn given(text: Option<&str>, overrides: &Table) -> Result<Table> {
    let parse = |e: toml::de::Error| fail("configuration", e.to_string().trim_end().to_string());
    let mut given: Table = text.unwrap_or("").parse().map_err(parse)?;
    merge(&mut given, overrides);
    Ok(given)
}

/// The first key, with its path, whose values differ, and both values.
pub(super) fn difference(prefix: &str, a: &Table, b: &Table) -> Option<(String, String, String)> {
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
        (Some(Value::Table(a)), Some(Value::Table(b))) => difference(&format!("{prefix}{key}."), a, b),
        (a, b) if a == b => None,
        (a, b) => {
            let said = |v: Option<&Value>| v.map_or("not set".into(), Value::to_string);
            Some((format!("{prefix}{key}"), said(a), said(b)))
        }
    })
}

/// Puts `over` onto `base`: tables key by key, other values replaced; `false` in place of a table removes it.
pub(super) fn merge(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if is_choice(key) => *old = new.clone(),
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (Some(Value::Table(_)), Value::Boolean(false)) => {
                base.remove(key);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Keys whose table holds one alternative, so that a new one replaces the old.
fn is_choice(key: &str) -> bool {
    matches!(key, "mask_rule" | "decay")
}

/// A top-level key that decides about defaults.
pub(super) fn choice<T: serde::de::DeserializeOwned>(given: &Table, key: &str, default: T) -> Result<T> {
    let Some(value) = given.get(key) else { return Ok(default) };
    value.clone().try_into().map_err(|e: toml::de::Error| {
        let Error::Setting { reason, .. } = explain_error(e.message()) else { return fail(key, e.to_string()) };
        fail(key, reason)
    })
}

/// Turns serde's "unknown …, expected one of …" into a message with the nearest alternative.
pub(super) fn explain_error(message: &str) -> Error {
    let message = message.lines().next().unwrap_or(message);
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(given), true) = (quoted.next(), message.starts_with("unknown")) else {
        return fail("configuration", message.to_string());
    };
    let known: Vec<&str> = quoted.collect();
    let bare = |name: &str| name.replace(['-', '_'], "");
    let distance = |known: &str| strsim::damerau_levenshtein(&bare(given), &bare(known));
    let nearest = known.iter().map(|k| (distance(k), k)).min_by_key(|(d, _)| *d);
    let hint = match nearest {
        Some((distance, key)) if distance <= 2.max(given.len() / 3) => format!("did you mean `{key}`?"),
        _ => format!("known are {}", known.join(", ")),
    };
    fail(given, format!("`{given}` is not known; {hint}"))
}
