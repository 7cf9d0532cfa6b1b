//! A session as plain data.

use serde::{Deserialize, Serialize};

use super::pending::Pending;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::Decoder;
use crate::proto::id::SessionId;
use crate::transport::PackedPeer;

/// A session without its socket: plain data that can be serialized and resumed elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionState {
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
    /// The decoder, which may be in the middle of a frame.
    pub decoder: Decoder,
    /// Frames and bytes that were read and wait.
    pub pending: Pending,
    /// The connect event is still to be sent.
    pub connect_due: bool,
    /// PHP knows of the session, so it must get a close event.
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
