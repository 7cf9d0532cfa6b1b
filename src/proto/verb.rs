//! Commands as words with arguments, as in the HTTP API and in commands that PHP publishes directly into an engine.

use super::arguments::{Arguments, BadArgument};
use super::command::{Action, Command, Message};
use super::framing::{FrameKind, is_valid_close_code};

/// The word of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Send a message to the sessions.
    Send,
    /// The sessions join a channel.
    Join,
    /// The sessions leave a channel.
    Leave,
    /// Close the sessions.
    Close,
    /// Bind the sessions to a uid.
    Bind,
    /// Unbind the sessions from their uid.
    Unbind,
    /// Set an attribute.
    Set,
    /// Delete an attribute.
    Delete,
    /// Count the sessions.
    Exists,
}

/// A command that an application published directly into the engine: a JSON object with the arguments of the HTTP API, and the last
/// segment of the API's path as `command`.
///
/// ```
/// use longwire::proto::verb::published;
///
/// let command = published(br#"{"command": "send", "to": "channel:news", "message": "hi"}"#).unwrap();
/// assert_eq!(command.action.label(), "send");
/// ```
///
/// # Errors
///
/// The payload is not such an object, or an argument is missing, unknown or wrong.
pub fn published(payload: &[u8]) -> Result<Command, BadArgument> {
    let mut arguments = Arguments::of_json(payload)?;
    let word = arguments.text("command")?.ok_or_else(|| BadArgument::new("command: is missing"))?;
    let verb = Verb::parse(&word).ok_or_else(|| BadArgument::new(format!("command: unknown command {word:?}")))?;
    verb.command(arguments)
}

impl Verb {
    /// The verb with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "send" => Verb::Send,
            "join" => Verb::Join,
            "leave" => Verb::Leave,
            "close" => Verb::Close,
            "bind" => Verb::Bind,
            "unbind" => Verb::Unbind,
            "set" => Verb::Set,
            "delete" => Verb::Delete,
            "exists" => Verb::Exists,
            _ => return None,
        })
    }

    /// The argument that a body holds if it is not JSON.
    pub fn raw_body(self) -> Option<&'static str> {
        match self {
            Verb::Send | Verb::Close => Some("message"),
            Verb::Set => Some("value"),
            _ => None,
        }
    }

    /// The command with these arguments.
    ///
    /// # Errors
    ///
    /// An argument is missing, unknown or wrong; the text names it.
    pub fn command(self, arguments: Arguments) -> Result<Command, BadArgument> {
        arguments.command(|arguments| {
            Ok(match self {
                Verb::Send => {
                    let message = message(arguments)?.ok_or_else(|| BadArgument::new("message: is missing"))?;
                    let (key, id) = (arguments.name_if_any("key")?, arguments.name_if_any("id")?);
                    Action::Send(Message { key, id, ..message })
                }
                Verb::Join => Action::Join(arguments.name("channel")?),
                Verb::Leave => Action::Leave(arguments.name("channel")?),
                Verb::Close => close(arguments)?,
                Verb::Bind => Action::Bind(arguments.name("uid")?),
                Verb::Unbind => Action::Unbind,
                Verb::Set => Action::Set {
                    key: arguments.attribute_key()?,
                    value: arguments.blob("value")?.ok_or_else(|| BadArgument::new("value: is missing"))?,
                    expect: arguments.expect()?,
                },
                Verb::Delete => Action::Delete(arguments.attribute_key()?),
                Verb::Exists => Action::Touch,
            })
        })
    }
}

/// The optional message, with the kind that the caller gave, and without key and id.
fn message(arguments: &mut Arguments) -> Result<Option<Message>, BadArgument> {
    let is_encoded = arguments.has("message_base64");
    let body = arguments.blob("message")?;
    let kind = arguments.kind()?;
    if kind == Some(FrameKind::Text) && is_encoded {
        // A JSON schema cannot express that base64 must decode to UTF-8.
        return Err(BadArgument::new("message_base64: is for binary messages; send a message of kind text as message"));
    }
    let Some(body) = body else { return Ok(None) };
    if kind == Some(FrameKind::Text) && str::from_utf8(&body).is_err() {
        return Err(BadArgument::new("message: is of kind text but not UTF-8"));
    }
    Ok(Some(Message { kind, ..Message::new(body) }))
}

fn close(arguments: &mut Arguments) -> Result<Action, BadArgument> {
    let code = arguments.number("code", u16::MAX)?.unwrap_or(1000);
    if !is_valid_close_code(code) {
        return Err(BadArgument::new(format!("code: {code} is not a close code that may be sent")));
    }
    let text = arguments.text("reason")?.unwrap_or_default();
    // An empty message counts as none, as on the router port.
    let last = message(arguments)?.filter(|message| !message.body.is_empty());
    Ok(Action::close(code, &text, last))
}
