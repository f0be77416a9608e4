//! The items of the calls of one connection, between their handlers and the credit of the client.
//!
//! A handler's chunk is pulled only when everything of the one before is sent and there is credit for more, so a client
//! that gives none stops its own handler and nothing else. An answer waits until the items before it are sent.

use super::running::Running;
use crate::{
    conn::{ApiMisuse, Connection},
    rpc::{Answer, CLIENT_ITEMS_WINDOW, Demand, ItemPipes, Items, Status, items},
    time::Timer,
    wire::ErrorCode,
};
use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// Items that clients may be asked for, over all calls of a connection, beyond one for each call: with 1 MiB each, what
/// a peer can make wait here is bounded, and no call waits for another one's client.
const CONNECTION_ITEMS_MAX: u32 = 64;

type Chunks = mpsc::Receiver<Vec<Bytes>>;

/// Where the handler's end is.
enum Source {
    /// In the hands of a future in `running`.
    Running(AbortHandle),
    /// Waits for credit.
    Parked(Chunks),
    /// The handler has no more items, or never had any.
    Closed,
}

/// One call's items.
struct Flow {
    source: Source,
    /// Of the last chunk, without credit so far.
    waiting: VecDeque<Bytes>,
    /// The answer, once the handler has given it.
    answer: Option<Result<Answer, Status>>,
    deadline: Instant,
    client: Option<Client>,
    /// The client gave the call up before it had all of its items.
    is_cancelled: bool,
}

/// The client's direction.
struct Client {
    items: mpsc::Sender<Bytes>,
    demand: Arc<Demand>,
    /// Asked for by the handler and not by us of the client.
    owed: u32,
    /// Asked of the client and not come.
    open: u32,
}

/// What a future of `running` brings: a chunk, or the end of them.
type Pulled = (u32, Chunks, Option<Vec<Bytes>>);
type Pull = Abortable<BoxFuture<'static, Pulled>>;

/// What the connection has to do.
pub(super) enum Output {
    /// Look at a call: [`Flows::advance`].
    Advance(u32),
    /// Some handler asks for items: [`Flows::ask`].
    Ask,
    /// The answer of a call whose items the client did not take in time.
    OutOfTime(u32),
}

/// All of one connection.
#[derive(Default)]
pub(super) struct Flows {
    flows: HashMap<u32, Flow>,
    running: Running<Pull>,
    /// Rung by handlers that take items; made with the first of them.
    bell: Option<Arc<Notify>>,
    /// For the answer that has waited longest for its items to be taken.
    timer: Timer,
    /// The sum of `open` beyond the first of each call.
    open_beyond_first: u32,
}

impl Flows {
    /// Opens the directions of a call; without any nothing is kept.
    pub(super) fn open(&mut self, stream: u32, directions: u8, deadline: Duration) -> Items {
        if directions == 0 {
            return Items::default();
        }
        let deadline = Instant::now() + deadline;
        let (items, ItemPipes { client, server }) = items(directions, self.bell.get_or_insert_default());
        let source = server.map_or(Source::Closed, Source::Parked);
        let client = client.map(|(items, demand)| Client { items, demand, owed: 0, open: 0 });
        let flow =
            Flow { source, waiting: VecDeque::new(), answer: None, deadline, client, is_cancelled: false };
        self.flows.insert(stream, flow);
        items
    }

    /// Calls that are not answered to the end.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether [`next`](Self::next) may bring something.
    pub(super) fn is_running(&self) -> bool {
        !(self.flows.is_empty() && self.running.is_empty())
    }

    /// Forgets a call. Its handler learns that nobody takes items.
    pub(super) fn remove(&mut self, stream: u32) {
        let Some(mut flow) = self.flows.remove(&stream) else { return };
        flow.stop();
        if let Some(client) = flow.client {
            self.give_back(client.open.saturating_sub(1));
        }
    }

    /// The client gives a call up. Its handler learns that nobody takes items; until it ends, the call is remembered, so
    /// that half of the items is not answered as if it were all. Says whether the handler has ended already.
    pub(super) fn cancel(&mut self, stream: u32) -> bool {
        let Some(flow) = self.flows.get_mut(&stream) else { return false };
        if flow.answer.is_some() || flow.is_sent() {
            let is_done = flow.answer.is_some();
            self.remove(stream);
            return is_done;
        }
        flow.is_cancelled = true;
        flow.stop();
        flow.waiting.clear();
        self.recv_end(stream);
        false
    }

    /// Places for items of clients that other calls may have.
    fn give_back(&mut self, items: u32) {
        if items > 0 {
            self.open_beyond_first -= items;
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }

    /// Gives back what it holds for calls, if there are none.
    pub(super) fn rest(&mut self) {
        self.running.rest();
    }

    /// The handler answered: gives the answer back when it may be sent now. A failure does not wait for items.
    pub(super) fn answer(
        &mut self,
        stream: u32,
        result: Result<Answer, Status>,
    ) -> Option<Result<Answer, Status>> {
        match self.flows.get_mut(&stream) {
            // A call without items.
            None => Some(result),
            Some(flow) if flow.is_cancelled => {
                self.remove(stream);
                Some(result.and(Err(cancelled())))
            }
            Some(flow) if result.is_ok() && !flow.is_sent() => {
                flow.answer = Some(result);
                None
            }
            Some(_) => {
                self.remove(stream);
                Some(result)
            }
        }
    }

    /// An item of the client.
    pub(super) fn recv(&mut self, stream: u32, item: Bytes) {
        let Some(client) = self.flows.get_mut(&stream).and_then(|flow| flow.client.as_mut()) else { return };
        // There is a place for each item that was asked for; a handler that has ended wants none.
        let _unwanted = client.items.try_send(item);
        let freed = u32::from(client.open > 1);
        client.open = client.open.saturating_sub(1);
        if client.owed > 0 {
            self.ring();
        }
        self.give_back(freed);
    }

    /// The client has no more items.
    pub(super) fn recv_end(&mut self, stream: u32) {
        let Some(flow) = self.flows.get_mut(&stream) else { return };
        if let Some(client) = flow.client.take() {
            self.give_back(client.open.saturating_sub(1));
        }
    }

    /// Asks clients for what handlers can take.
    pub(super) fn ask(&mut self, connection: &mut Connection) {
        for (stream, flow) in &mut self.flows {
            let Some(client) = &mut flow.client else { continue };
            client.owed = client.owed.saturating_add(client.demand.take()).min(CLIENT_ITEMS_WINDOW);
            let room = CONNECTION_ITEMS_MAX - self.open_beyond_first + u32::from(client.open == 0);
            let Some(items) = NonZeroU32::new(client.owed.min(room)) else { continue };
            let before = client.open.saturating_sub(1);
            client.owed -= items.get();
            client.open += items.get();
            self.open_beyond_first += (client.open - 1) - before;
            // The stream may have ended meanwhile: then nobody is to be asked.
            let _ended = connection.credit(*stream, items);
        }
    }

    /// Sends what there is credit for, and lets the handler make more when everything is sent. Gives the answer when it
    /// is its turn.
    pub(super) fn advance(
        &mut self,
        stream: u32,
        connection: &mut Connection,
    ) -> Option<Result<Answer, Status>> {
        let flow = self.flows.get_mut(&stream)?;
        while let Some(item) = flow.waiting.front() {
            match connection.send_data(stream, item.clone()) {
                Ok(()) => drop(flow.waiting.pop_front()),
                Err(ApiMisuse::NoCredit) => return None,
                Err(ApiMisuse::MessageTooLarge) => {
                    self.remove(stream);
                    return Some(Err(Status::new(ErrorCode::PAYLOAD_TOO_LARGE, "an item is over 1 MiB")));
                }
                // The connection is over.
                Err(_) => return None,
            }
        }
        // An empty chunk ends the handler's items, and needs no credit.
        let has_credit = connection.call_credit(stream).is_some_and(|credit| credit > 0);
        if has_credit || flow.answer.is_some() {
            match std::mem::replace(&mut flow.source, Source::Closed) {
                Source::Parked(mut chunks) => {
                    let pull: BoxFuture<'static, Pulled> = Box::pin(async move {
                        let chunk = chunks.recv().await;
                        (stream, chunks, chunk)
                    });
                    let (pull, handle) = futures_util::future::abortable(pull);
                    self.running.push(pull);
                    flow.source = Source::Running(handle);
                }
                other => flow.source = other,
            }
        }
        if !flow.is_sent() {
            return None;
        }
        let answer = flow.answer.take()?;
        self.remove(stream);
        Some(answer)
    }

    /// Waits for something to do. Waits for ever when there is nothing. Cancel-safe.
    pub(super) async fn next(&mut self) -> Output {
        loop {
            let held = self.flows.iter().filter(|(_, flow)| flow.answer.is_some());
            let first =
                held.min_by_key(|(_, flow)| flow.deadline).map(|(stream, flow)| (*stream, flow.deadline));
            let rung = async {
                match &self.bell {
                    Some(bell) => bell.notified().await,
                    None => std::future::pending().await,
                }
            };
            let (stream, chunks, chunk) = tokio::select! {
                () = rung => return Output::Ask,
                Some(pulled) = self.running.next() => match pulled {
                    Ok(pulled) => pulled,
                    // Nobody takes its items any more.
                    Err(Aborted) => continue,
                },
                () = self.timer.wait(first.map(|(_, deadline)| deadline)) => match first {
                    Some((stream, deadline)) if deadline <= Instant::now() => {
                        self.remove(stream);
                        return Output::OutOfTime(stream);
                    }
                    // It went off for an answer that is sent.
                    _ => continue,
                },
            };
            let Some(flow) = self.flows.get_mut(&stream) else { continue };
            match chunk {
                Some(chunk) => {
                    flow.source = Source::Parked(chunks);
                    flow.waiting = chunk.into();
                }
                None => flow.source = Source::Closed,
            }
            return Output::Advance(stream);
        }
    }
}

/// What a client is told that gave a call up.
pub(super) fn cancelled() -> Status {
    Status::new(ErrorCode::CANCELLED, "the call was cancelled")
}

impl Flow {
    /// Lets go of the handler's end, wherever it is.
    fn stop(&mut self) {
        if let Source::Running(pull) = std::mem::replace(&mut self.source, Source::Closed) {
            pull.abort();
        }
    }

    fn is_sent(&self) -> bool {
        matches!(self.source, Source::Closed) && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline() -> Duration {
        Duration::from_secs(5)
    }

    /// Asks for items of a call with no connection behind it: what counts is what is asked for.
    fn opened(flows: &mut Flows, streams: std::ops::Range<u32>) -> Vec<crate::rpc::ItemReceiver> {
        let items = streams.map(|stream| flows.open(stream, crate::rpc::CLIENT_ITEMS, deadline()));
        items.map(|items| items.client.expect("asked for")).collect()
    }

    fn connection() -> Connection {
        let config = crate::conn::ServerConfig {
            provider: crate::noise::rust_crypto(),
            identities: vec![crate::noise::StaticSecret::from_bytes([1; 32])],
            suites: vec![crate::wire::Suite::NK_CHACHAPOLY],
            psk: None,
            limits: crate::conn::Limits::default(),
        };
        let entropy = crate::conn::Entropy { ephemeral: [2; 32], connection_id: [0; 16], server_time_ms: 0 };
        Connection::server(Arc::new(config), entropy, crate::conn::Framing::Stream, Duration::ZERO)
            .expect("a configuration that works")
    }

    #[tokio::test]
    async fn every_call_gets_an_item_and_all_together_not_too_many() {
        let (mut flows, mut connection) = (Flows::default(), connection());
        let mut receivers = opened(&mut flows, 0..20);
        for receiver in &mut receivers {
            // The first look asks for a window.
            assert!(futures_util::poll!(Box::pin(receiver.recv())).is_pending());
        }
        assert!(matches!(flows.next().await, Output::Ask));
        flows.ask(&mut connection);
        let open: Vec<u32> =
            flows.flows.values().map(|flow| flow.client.as_ref().map_or(0, |client| client.open)).collect();
        assert!(open.iter().all(|open| *open >= 1), "{open:?}");
        assert_eq!(open.iter().sum::<u32>(), CONNECTION_ITEMS_MAX + 20);
        // What one call gives back, another one gets.
        let (stream, _) =
            flows.flows.iter().find(|(_, f)| f.client.as_ref().is_some_and(|c| c.open > 1)).expect("one");
        let stream = *stream;
        flows.remove(stream);
        assert!(matches!(flows.next().await, Output::Ask));
        flows.ask(&mut connection);
        let open = flows.flows.values().filter_map(|flow| flow.client.as_ref()).map(|client| client.open);
        assert_eq!(open.sum::<u32>(), CONNECTION_ITEMS_MAX + 19);
        for stream in 0..20 {
            flows.remove(stream);
        }
        assert_eq!(flows.open_beyond_first, 0);
    }

    #[tokio::test]
    async fn a_handler_whose_call_is_given_up_learns_it_and_its_half_result_is_none() {
        let (mut flows, mut connection) = (Flows::default(), connection());
        let mut senders = Vec::new();
        for stream in [1, 3] {
            let items = flows.open(stream, crate::rpc::SERVER_ITEMS, deadline());
            senders.push(items.server.expect("asked for"));
        }
        // One is waited for, the other one has sent something that waits.
        flows.flows.get_mut(&1).expect("it is open").answer = Some(Ok(Bytes::new().into()));
        assert_eq!(flows.advance(1, &mut connection), None);
        assert!(matches!(flows.flows[&1].source, Source::Running(_)));
        senders[1].send(vec![Bytes::from_static(b"item")]).await.expect("there is a place");
        assert!(flows.cancel(1), "its handler has ended");
        assert!(!flows.cancel(3));
        assert!(flows.is_running());
        assert!(futures_util::poll!(Box::pin(flows.next())).is_pending());
        for sender in &senders {
            sender.gone().await;
        }
        let answer = flows.answer(3, Ok(Bytes::new().into())).expect("it waits for nothing");
        assert_eq!(answer.map_err(|status| status.code), Err(ErrorCode::CANCELLED));
        assert_eq!((flows.len(), flows.is_running()), (0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_its_items_and_no_longer_than_its_deadline() {
        let (mut flows, mut connection) = (Flows::default(), connection());
        let items = flows.open(1, crate::rpc::SERVER_ITEMS, deadline());
        let sender = items.server.expect("asked for");
        sender.send(vec![Bytes::from_static(b"item")]).await.expect("there is a place");
        drop(sender);
        assert_eq!(flows.answer(1, Ok(Bytes::new().into())), None);
        assert_eq!(flows.advance(1, &mut connection), None);
        assert!(matches!(flows.next().await, Output::Advance(1)));
        // There is no credit, and none comes.
        assert_eq!(flows.advance(1, &mut connection), None);
        assert!(matches!(flows.next().await, Output::OutOfTime(1)));
        assert_eq!(flows.len(), 0);
        // A failure is told at once.
        let _items = flows.open(3, crate::rpc::SERVER_ITEMS, deadline());
        assert!(flows.answer(3, Err(Status::internal())).is_some());
    }
}
