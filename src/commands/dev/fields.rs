//! The fields of a log event as text.

use tracing::field::{Field, Visit};

/// The fields of an event and their values as text.
#[derive(Default)]
pub(super) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("-")
    }

    /// All fields but the message, the session (which has a column of its own) and the script: ` limit=max_sessions times=3`.
    pub(super) fn others(&self) -> String {
        let others = self.0.iter().filter(|(name, _)| !["message", "session", "script"].contains(name));
        others.map(|(name, value)| format!(" {name}={value}")).collect()
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}
