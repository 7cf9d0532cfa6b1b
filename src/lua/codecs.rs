//! The framing of a listener: it makes a codec for each session.

use std::sync::Arc;

use super::pool::Pool;
use super::session::Session;
use crate::proto::framing::custom::{Codec, SessionCodec};
use crate::proto::id::SessionId;

#[derive(Debug)]
pub(super) struct Codecs(pub(super) Arc<Pool>);

impl Codec for Codecs {
    fn of_session(&self, id: SessionId) -> Arc<dyn SessionCodec> {
        let (vm, number) = self.0.place();
        Arc::new(Session::new(self.0.clone(), vm, id, number))
    }
}
