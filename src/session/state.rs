//! A session as plain data.

use serde::{Deserialize, Serialize};

use super::pending::Pending;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::Decoder;
use crate::proto::id::SessionId;
use crate::transport::PackedPeer;

/// What a session is, apart from its socket: plain data that can be written down and taken up elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub id: SessionId,
    /// The other end.
    pub peer: PackedPeer,
    /// This end.
    pub local: PackedPeer,
    /// The params of its connection, and of the upgrade request if there was one. Only its cookies change while it lives.
    #[serde(with = "encoded")]
    pub own_params: EncodedParams,
    /// The number of the next event.
    pub next_seq: u64,
    /// What the framing is in the middle of.
    pub decoder: Decoder,
    /// What was read and waits.
    pub pending: Pending,
    /// PHP is still to be told of the session.
    pub connect_due: bool,
    /// PHP knows of the session and is owed a close event.
    pub close_owed: bool,
}

mod encoded {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::proto::fastcgi::params::EncodedParams;

    pub(super) fn serialize<S: Serializer>(params: &EncodedParams, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(&[u8], &[u8])> = params.pairs().collect();
        pairs.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EncodedParams, D::Error> {
        let mut params = crate::proto::fastcgi::params::Params::new();
        for (name, value) in Vec::<(Vec<u8>, Vec<u8>)>::deserialize(deserializer)? {
            params.push(&name, &value).map_err(serde::de::Error::custom)?;
        }
        Ok(params.finish())
    }
}
