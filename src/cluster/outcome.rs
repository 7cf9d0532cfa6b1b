//! The result of a command or a query on all nodes.

use serde::Serialize;

use crate::proto::command::Receipt;
use crate::router::QueryAnswer;

/// The result of a command on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The receipts of this node and of the nodes that answered, added up.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// Nodes that may have sessions of the command and did not answer in time.
    #[serde(flatten)]
    pub unreached: Unreached,
}

/// The nodes that could not be reached, or did not confirm it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unreached {
    /// The names of the nodes that did not answer in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
    /// There is no engine now: no other node was asked.
    #[serde(skip_serializing_if = "is_false")]
    pub engine_down: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Unreached {
    /// True if every node was reached.
    pub fn is_empty(&self) -> bool {
        self.unreachable.is_empty() && !self.engine_down
    }
}

impl std::fmt::Display for Unreached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.engine_down {
            true => f.write_str("the engine is unreachable, so no other node can be asked"),
            false => write!(f, "not reached in time: {}", self.unreachable.join(", ")),
        }
    }
}

impl From<Receipt> for Outcome {
    fn from(receipt: Receipt) -> Self {
        Self { receipt, unreached: Unreached::default() }
    }
}

/// The answer to a query, from all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// From this node and the nodes that answered.
    #[serde(flatten)]
    pub answer: QueryAnswer,
    /// Which nodes have not answered.
    #[serde(flatten)]
    pub unreached: Unreached,
}

impl Asked {
    /// As JSON. Empty if there is no answer, or the answer is not JSON.
    pub fn json(&self) -> Vec<u8> {
        match &self.answer {
            QueryAnswer::Absent | QueryAnswer::Value(_) | QueryAnswer::Json(_) => self.answer.json(),
            _ if self.unreached.is_empty() => self.answer.json(),
            _ => serde_json::to_vec(self).expect("names are text and nothing else can fail"),
        }
    }
}
