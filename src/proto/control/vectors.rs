//! Tests the codec against tests/vectors/router.json, which was not made with this codec.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::Frame;
use super::long::{self, Challenge, ErrorWord, Hello, Operation, Proofs, RouterAnswer, RouterRequest};
use super::short::{self, Gateway, ShortRequest};
use crate::proto::command::{Action, AttributeKey, Command, Except, Expect, Message, Name, Page, Query, Target};
use crate::proto::framing::FrameKind;
use crate::proto::id::SessionId;

/// Calls `check` with each example of a section.
fn each(section: &str, check: impl FnMut(&Value)) {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/router.json")).unwrap();
    let examples = vectors[section].as_array().unwrap();
    assert!(!examples.is_empty());
    examples.iter().for_each(check);
}

fn hex(example: &Value) -> BytesMut {
    unhex(example["hex"].as_str().unwrap())
}

fn unhex(text: &str) -> BytesMut {
    let digits: Vec<char> = text.chars().filter(|c| *c != ' ').collect();
    assert!(digits.len().is_multiple_of(2));
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    BytesMut::from_iter(digits.chunks(2).map(byte))
}

fn frame(example: &Value) -> Frame {
    let mut bytes = hex(example);
    let frame = Frame::decode(&mut bytes, 1 << 20).unwrap().expect("an example is whole");
    assert!(bytes.is_empty());
    frame
}

fn array<const N: usize>(example: &Value, key: &str) -> [u8; N] {
    unhex(example[key].as_str().unwrap())[..].try_into().unwrap()
}

/// The bytes of a key, given as text, or in hexadecimal under the same key with `_hex`.
fn bytes(example: &Value, key: &str) -> Bytes {
    match example[key].as_str() {
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
        None => unhex(example[format!("{key}_hex")].as_str().unwrap()).freeze(),
    }
}

fn name(example: &Value, key: &str) -> Name {
    Name::new(&bytes(example, key)).unwrap()
}

fn attribute_key(example: &Value) -> AttributeKey {
    AttributeKey::new(&bytes(example, "key")).unwrap()
}

fn id(value: &Value) -> SessionId {
    SessionId::from_bytes(value.as_str().unwrap().as_bytes()).unwrap()
}

fn target(value: &Value) -> Target {
    match value {
        Value::Array(ids) => Target::Sessions(ids.iter().map(id).collect()),
        text => Target::parse(text.as_str().unwrap().as_bytes()).unwrap(),
    }
}

fn message(example: &Value, key: &str) -> Message {
    let kind = match example["kind"].as_str() {
        Some("text") => Some(FrameKind::Text),
        Some("binary") => Some(FrameKind::Binary),
        _ => None,
    };
    let name_if_any = |key| example[key].as_str().map(|_| name(example, key));
    Message { body: bytes(example, key), kind, key: name_if_any("key"), id: name_if_any("id") }
}

fn command(example: &Value) -> Command {
    let mut except = Except::default();
    for target_left_out in example["except"].as_array().into_iter().flatten() {
        except.add(target(target_left_out)).unwrap();
    }
    let action = match example["do"].as_str().unwrap() {
        "send" => Action::Send(message(example, "body")),
        "join" => Action::Join(name(example, "channel")),
        "leave" => Action::Leave(name(example, "channel")),
        "close" => Action::Close {
            code: example["code"].as_u64().unwrap_or(1000).try_into().unwrap(),
            text: example["reason"].as_str().unwrap_or("").into(),
            last: example["last"].as_str().map(|_| message(example, "last")),
        },
        "bind" => Action::Bind(name(example, "uid")),
        "unbind" => Action::Unbind,
        "set" => Action::Set {
            key: attribute_key(example),
            value: bytes(example, "value"),
            expect: match example.get("expect") {
                None => Expect::Anything,
                Some(Value::Null) => Expect::Absent,
                Some(_) => Expect::Value(bytes(example, "expect")),
            },
        },
        "delete" => Action::Delete(attribute_key(example)),
        "exists" => Action::Touch,
        other => panic!("{other} is no command"),
    };
    Command { to: target(&example["to"]), except, action }
}

fn query(example: &Value) -> Query {
    let page = || Page {
        after: example["after"].as_str().map(|after| after.as_bytes().into()),
        limit: example["limit"].as_u64().unwrap() as usize,
    };
    match example["ask"].as_str().unwrap() {
        "attribute" => Query::Attribute(id(&example["of"]), attribute_key(example)),
        "session" => Query::Session(id(&example["of"])),
        "channel" => Query::Channel(name(example, "of"), page()),
        "uid" => Query::Uid(name(example, "of"), page()),
        "channels" => Query::Channels(page()),
        "sessions" => Query::Sessions(page()),
        "node" => Query::Node,
        "nodes" => Query::Nodes,
        other => panic!("{other} is no query"),
    }
}

#[test]
fn proofs() {
    each("proofs", |example| {
        let proofs = Proofs {
            secret: example["secret"].as_str().unwrap().as_bytes(),
            client_nonce: array(example, "client_nonce"),
            server_nonce: array(example, "server_nonce"),
        };
        let mut client: [u8; 32] = array(example, "client");
        assert_eq!(proofs.of_client(), client);
        assert_eq!(proofs.of_server(), array(example, "server"));
        assert!(proofs.is_client(&client) && !proofs.is_client(&client[..31]));
        client[31] ^= 1;
        assert!(!proofs.is_client(&client));
    });
}

#[test]
fn orders_of_the_short_protocol() {
    each("short", |example| {
        let expected = match example["do"].as_str() {
            Some("info") => ShortRequest::Info,
            _ => ShortRequest::Command(command(example)),
        };
        assert_eq!(short::decode(&frame(example)), Ok(expected));
    });
}

#[test]
fn answers_of_the_short_protocol() {
    each("short_answers", |example| {
        let gateway = |of: &Value| {
            let number = |key: &str| of[key].as_u64().unwrap() as usize;
            Gateway { node: number("node") as u16, sessions: number("sessions"), channels: number("channels") }
        };
        let gateways: Vec<Gateway> = example["gateways"].as_array().unwrap().iter().map(gateway).collect();
        let mut out = BytesMut::new();
        short::info(&gateways, &mut out);
        assert_eq!(out, hex(example));
    });
}

#[test]
fn what_the_short_protocol_refuses() {
    each("short_refused", |example| {
        let error = match Frame::decode(&mut hex(example), 1 << 20) {
            Ok(frame) => short::decode(&frame.expect("an example is whole")).expect_err("it is refused").label(),
            Err(_) => "bad_frame",
        };
        assert_eq!(error, example["error"]);
    });
}

#[test]
fn the_greeting_both_ways() {
    each("greeting", |example| {
        let (frame, mut out) = (frame(example), BytesMut::new());
        let proof = example["proof"].as_str().map(unhex);
        match example["kind"].as_str().unwrap() {
            "hello" => {
                let hello = Hello::decode(&frame).unwrap();
                assert_eq!(hello.versions, unhex(example["versions"].as_str().unwrap()));
                assert_eq!(hello.nonce, array(example, "nonce"));
                assert_eq!(hello.peer, example["peer"]);
                // The other example has its fields in a different order.
                if hello.peer.is_empty() {
                    return;
                }
                hello.encode(&mut out);
            }
            "challenge" => {
                let challenge = Challenge::decode(&frame).unwrap();
                let wants_proof = example["auth"].as_bool().unwrap();
                assert_eq!(challenge, Challenge { nonce: array(example, "nonce"), wants_proof });
                long::challenge(&challenge.nonce, wants_proof, example["peer"].as_str().unwrap(), &mut out);
            }
            "proof" => {
                assert_eq!(long::decode_proof(&frame).ok().as_deref(), proof.as_deref());
                long::encode_proof(&proof.unwrap(), &mut out);
            }
            _ => {
                assert_eq!(long::decode_welcome(&frame).unwrap().as_deref(), proof.as_deref());
                long::welcome(proof.as_deref(), &mut out);
            }
        }
        assert_eq!(out, hex(example));
    });
}

#[test]
fn requests_both_ways() {
    each("requests", |example| {
        let operation = match example.get("do") {
            Some(_) => Operation::Command(command(example)),
            None => Operation::Query(query(example)),
        };
        let request = RouterRequest { number: example["request"].as_u64().unwrap() as u32, operation };
        assert_eq!(RouterRequest::decode(&frame(example)).as_ref(), Ok(&request));
        let mut out = BytesMut::new();
        request.encode(&mut out);
        assert_eq!(out, hex(example));
    });
}

#[test]
fn what_the_long_protocol_refuses() {
    each("refused", |example| {
        let frame = frame(example);
        // A frame of another protocol. The port notices that before it reads on.
        if super::Protocol::of(frame.kind) != Some(super::Protocol::Long) {
            assert_eq!(example["error"], "bad_frame");
            return;
        }
        let wrong = RouterRequest::decode(&frame).expect_err("it is refused");
        assert_eq!(wrong.word.label(), example["error"], "{}", wrong.text);
        assert_eq!(wrong.request.map(u64::from), example["request"].as_u64());
        assert_eq!(wrong.request.is_none(), wrong.word == ErrorWord::BadFrame);
    });
}

#[test]
fn answers_both_ways() {
    each("answers", |example| {
        let request = example["request"].as_u64().map(|request| request as u32);
        let expected = if let Some(counts) = example["receipt"].as_array() {
            let counts = counts.iter().map(|count| count.as_u64().unwrap() as u32).collect();
            RouterAnswer::Receipt { request: request.unwrap(), counts, unreachable: Vec::new(), engine_down: false }
        } else if example["result"].is_string() {
            RouterAnswer::Result { request: request.unwrap(), body: bytes(example, "result") }
        } else if example["absent"] == true {
            RouterAnswer::Absent { request: request.unwrap() }
        } else {
            let text = |key: &str| example[key].as_str().unwrap().to_owned();
            RouterAnswer::Error { request, word: text("error"), text: text("text") }
        };
        let frame = frame(example);
        assert_eq!(RouterAnswer::decode(&frame).as_ref(), Ok(&expected));
        let mut out = BytesMut::new();
        expected.encode(&mut out);
        // Later servers may send more than this one.
        if !example["name"].as_str().unwrap().contains("later") {
            assert_eq!(out, hex(example));
        }
    });
}
