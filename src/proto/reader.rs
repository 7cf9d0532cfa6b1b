//! Reads the parts of an envelope's payload, from front to back.

use bytes::{Buf, Bytes, BytesMut};

use super::control::Frame;
use super::control::long::{Request, What};
use super::partition::Partition;
use super::run::{RequestId, Run};

/// The error for a request whose number is 0.
pub(super) const NUMBERLESS: &str = "has a request without a number";

/// Reads the parts of a payload in order.
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads items until nothing is left.
    pub(super) fn all<T>(&mut self, next: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(next(self)?);
        }
        Ok(all)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, String> {
        if self.0.len() < len {
            return Err("ends too early".to_owned());
        }
        Ok(self.0.split_to(len))
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.take(1).map(|mut bytes| bytes.get_u8())
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.take(2).map(|mut bytes| bytes.get_u16())
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.take(4).map(|mut bytes| bytes.get_u32())
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.take(8).map(|mut bytes| bytes.get_u64())
    }

    pub(super) fn run(&mut self) -> Result<Run, String> {
        self.u64().map(Run::of)
    }

    pub(super) fn answered(&mut self) -> Result<RequestId, String> {
        let (run, number) = (self.run()?, self.u64()?);
        RequestId::new(run, number).ok_or_else(|| NUMBERLESS.to_owned())
    }

    pub(super) fn partition(&mut self) -> Result<Partition, String> {
        let number = self.u16()?;
        Partition::new(number).ok_or_else(|| format!("has partition {number}, which is out of range"))
    }

    pub(super) fn text(&mut self) -> Result<String, String> {
        let len = self.u8()?;
        let bytes = self.take(usize::from(len))?;
        String::from_utf8(bytes.into()).map_err(|_| "has a name that is not UTF-8".to_owned())
    }

    /// The next frame of the long protocol; `None` at the end.
    pub(super) fn frame(&mut self) -> Result<Option<What>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut input = BytesMut::from(std::mem::take(&mut self.0));
        // The payload is already complete, so no limit is needed: a frame that announces more bytes is an error.
        match Frame::decode(&mut input, usize::MAX) {
            Ok(Some(frame)) => {
                self.0 = input.freeze();
                Request::decode(&frame).map(|request| Some(request.what)).map_err(|wrong| wrong.to_string())
            }
            _ => Err("ends in the middle of a frame".to_owned()),
        }
    }

    /// All bytes that are left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("has {} bytes too many", self.0.len())) }
    }
}
