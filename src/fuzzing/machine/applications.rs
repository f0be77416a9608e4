//! What the applications at both ends do, and are told.

use super::{End, Machine, Served, Stream, fill};
use crate::{
    conn::{ApiMisuse, Event},
    wire::{
        ErrorCode,
        envelope::{
            CLIENT_ITEMS, Event as Item, EventKind, Overflow, RpcCall, RpcResponse, SERVER_ITEMS, Subscribe,
        },
    },
};
use bytes::Bytes;
use std::num::NonZeroU32;

impl Machine {
    pub(super) fn call(&mut self, len: usize) {
        if !self.may_send(len) {
            return;
        }
        let args = fill(self.streams.len(), len);
        let streams = CLIENT_ITEMS | SERVER_ITEMS;
        let call =
            RpcCall { method: "m".into(), args: args.clone(), streams, credit: 2, ..RpcCall::default() };
        if let Ok(stream) = self.client.connection.call(&call) {
            assert!(self.streams.insert(stream, Stream { args, ..Stream::default() }).is_none());
        }
    }

    pub(super) fn subscribe(&mut self, credit: u32) {
        let subscribe = Subscribe {
            table: "t".into(),
            filter: Bytes::new(),
            cursor: None,
            snapshot: true,
            overflow: Overflow::Close,
            credit,
            topic: None,
        };
        if let Ok(stream) = self.client.connection.subscribe(&subscribe) {
            let credit = u64::from(credit);
            let opened = Stream { is_subscription: true, credit, ..Stream::default() };
            assert!(self.streams.insert(stream, opened).is_none());
        }
    }

    pub(super) fn credit(&mut self, index: usize, items: u32) {
        let (Some(stream), Some(items)) = (self.opened(index, true), NonZeroU32::new(items)) else { return };
        if self.client.connection.credit(stream, items).is_ok()
            && let Some(known) = self.streams.get_mut(&stream)
        {
            known.credit += u64::from(items.get());
        }
    }

    pub(super) fn respond(&mut self, index: usize, len: usize) {
        let Some(stream) = self.served(index, false) else { return };
        if !self.may_send(len) {
            return;
        }
        let result = fill(self.streams.len(), len);
        let response = RpcResponse { result: result.clone(), ..RpcResponse::default() };
        self.expect(End::Server, |c| c.respond(stream, &response));
        self.end_service(stream, Some(Ok(result)));
    }

    pub(super) fn end_service(&mut self, stream: u32, answer: Option<Result<Bytes, ErrorCode>>) {
        assert!(self.served.remove(&stream).is_some());
        if let Some(known) = self.streams.get_mut(&stream) {
            known.answer = answer;
        }
    }

    pub(super) fn send_event(&mut self, index: usize, len: usize) {
        let Some(stream) = self.served(index, true) else { return };
        if !self.may_send(len) {
            return;
        }
        let is_over = self.server.connection.end().is_some();
        let Some(served) = self.served.get_mut(&stream) else { return };
        let item = Item {
            cursor: String::new(),
            kind: EventKind::Insert,
            id: served.items_sent.to_string(),
            data: Some(fill(len, len)),
            old: None,
            version: served.items_sent,
            dropped: 0,
            omitted: 0,
            lag: 0,
        };
        match self.server.connection.send_event(stream, &item) {
            Ok(()) => {
                served.items_sent += 1;
                if let Some(known) = self.streams.get_mut(&stream) {
                    assert!(!self.is_honest || served.items_sent <= known.credit, "an item without credit");
                    known.items.push_back(item);
                }
            }
            Err(ApiMisuse::NotOpen) => assert!(is_over),
            Err(ApiMisuse::NoCredit | ApiMisuse::NotSubscribed | ApiMisuse::MessageTooLarge) => {}
            Err(other) => panic!("{other}"),
        }
    }

    pub(super) fn send_item(&mut self, from: End, index: usize, len: usize) {
        let (stream, to) = match from {
            End::Client => (self.opened(index, false), End::Server),
            End::Server => (self.served(index, false), End::Client),
        };
        let Some(stream) = stream else { return };
        if !self.may_send(len) {
            return;
        }
        let item = fill(len, len);
        let connection = &mut self.side(from).connection;
        let is_over = connection.end().is_some();
        match connection.send_data(stream, item.clone()) {
            Ok(()) => {
                if let Some(known) = self.streams.get_mut(&stream) {
                    known.items(to).push_back(item);
                }
            }
            Err(ApiMisuse::NotOpen) => assert!(is_over),
            Err(ApiMisuse::NoCredit | ApiMisuse::NoSuchStream | ApiMisuse::MessageTooLarge) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// An item of a call arrived.
    pub(super) fn on_data(&mut self, to: End, stream: u32, item: &Bytes) {
        let is_honest = self.is_honest;
        let expected = self.streams.get_mut(&stream).and_then(|known| known.items(to).pop_front());
        assert!(!is_honest || expected.as_ref() == Some(item), "another item on {stream}");
    }

    pub(super) fn on_server_event(&mut self, event: Event) {
        match event {
            Event::Call(stream, call) => {
                let fits = |known: &Stream| known.args == call.args && !known.is_subscription;
                assert!(!self.is_honest || self.streams.get(&stream).is_some_and(fits), "another call");
                let served = Served { is_subscription: false, items_sent: 0 };
                assert!(self.served.insert(stream, served).is_none(), "a call came twice");
            }
            Event::Subscribe(stream, _) => {
                let fits = |known: &Stream| known.is_subscription;
                assert!(!self.is_honest || self.streams.get(&stream).is_some_and(fits));
                let served = Served { is_subscription: true, items_sent: 0 };
                assert!(self.served.insert(stream, served).is_none(), "a subscription came twice");
            }
            Event::Cancelled(stream) => {
                assert!(self.served.get(&stream).is_some_and(|served| !served.is_subscription));
            }
            Event::Credit(stream) | Event::DataEnd(stream) => assert!(self.served.contains_key(&stream)),
            Event::Data(stream, item) => {
                assert!(self.served.contains_key(&stream));
                self.on_data(End::Server, stream, &item);
            }
            Event::Publish(stream, _) => {
                assert!(!self.is_honest, "an event that nobody published");
                let served = Served { is_subscription: false, items_sent: 0 };
                assert!(self.served.insert(stream, served).is_none(), "an event came twice");
            }
            Event::Unsubscribed(stream) => {
                assert!(self.served.remove(&stream).is_some_and(|served| served.is_subscription));
            }
            Event::Established(_) | Event::HeartbeatEcho(_) => {}
            other => panic!("not an event of a server: {other:?}"),
        }
    }

    pub(super) fn on_client_event(&mut self, event: Event) {
        let is_honest = self.is_honest;
        let stream = match &event {
            Event::Response(stream, _)
            | Event::Error(stream, _)
            | Event::Subscribed(stream, _)
            | Event::Item(stream, _) => *stream,
            Event::Data(stream, item) => {
                self.on_data(End::Client, *stream, item);
                *stream
            }
            Event::Credit(stream) => *stream,
            Event::Connected(..) | Event::GoAway(_) | Event::HeartbeatEcho(_) => return,
            other => panic!("not an event of a client: {other:?}"),
        };
        let known = self.streams.get_mut(&stream).expect("a stream that was opened");
        assert!(!is_honest || !known.is_over, "an event after the last one");
        match event {
            Event::Response(_, response) => {
                let is_right = known.answer == Some(Ok(response.result)) && known.down.is_empty();
                assert!(!is_honest || is_right, "another answer");
                known.is_over = true;
            }
            Event::Error(_, error) => {
                let fits = match &known.answer {
                    Some(Err(code)) => error.code == *code,
                    Some(Ok(_)) => error.code == ErrorCode::PAYLOAD_TOO_LARGE,
                    None => known.is_subscription || error.code == ErrorCode::GOING_AWAY,
                };
                assert!(!is_honest || (fits && known.items.is_empty()), "another error: {error:?}");
                known.is_over = true;
            }
            Event::Item(_, item) => {
                let expected = known.items.pop_front();
                assert!(!is_honest || expected == Some(item), "another item");
            }
            Event::Subscribed(..) => assert!(!is_honest || known.is_subscription),
            _ => assert!(!is_honest || !known.is_subscription),
        }
    }
}
