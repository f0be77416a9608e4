//! Random work between two honest ends on random networks. Whatever happens: every call is answered once, items come in
//! order, no message is altered, and nobody is accused of a fault.
//!
//! A failure prints its seed; `RAYSTREAM_SEED=n` runs that one alone.

use crate::support::{
    Context, FRAMINGS, Rng, Setup, call, event,
    pair::{From, Pair},
    response, rpc_error, subscribe, subscribed,
};
use bytes::Bytes;
use raystream::{
    conn::{ApiMisuse, Event},
    wire::{ErrorCode, Suite, envelope::Event as Item},
};
use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

const SEEDS: u64 = 400;
const ACTIONS: usize = 150;

/// What is known of a call by an observer who sees both ends.
#[derive(Debug)]
struct Call {
    args: Bytes,
    /// The server's answer: a result, or the code of an error.
    answer: Option<Result<Bytes, ErrorCode>>,
    is_delivered: bool,
    is_cancelled: bool,
    is_answered: bool,
}

#[derive(Debug, Default)]
struct Subscription {
    /// At the server: may be sent on.
    is_open: bool,
    is_live: bool,
    /// At the client: waits for its end.
    is_waiting: bool,
    is_unsubscribed: bool,
    credit: u64,
    sent: VecDeque<Item>,
    count: u64,
}

struct World {
    rng: Rng,
    pair: Pair,
    calls: BTreeMap<u32, Call>,
    subscriptions: BTreeMap<u32, Subscription>,
    is_going_away: bool,
    pings: [usize; 2],
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(20) {
        0 => rng.below(1_000_000),
        1..=3 => rng.below(50_000),
        _ => rng.below(300),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let suite = Suite::ALL[rng.below(Suite::ALL.len())];
        let mut setup = Setup::new(suite, FRAMINGS[rng.below(2)]);
        if rng.one_in(2) {
            setup.server.limits.calls_max = u16::try_from(1 + rng.below(8)).unwrap();
            setup.server.limits.subscriptions_max = u16::try_from(rng.below(4)).unwrap();
        }
        let mut pair = Pair::new(setup).chunked(rng.next());
        pair.latency = Duration::from_micros(u64::try_from(rng.below(200_000)).unwrap());
        pair.drive();
        assert!(matches!(pair.server.take()[..], [Event::Established(_)]));
        pair.client.take();
        Self {
            rng,
            pair,
            calls: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            is_going_away: false,
            pings: [0; 2],
        }
    }

    /// One of the numbers for which `fits` says yes.
    fn pick<V>(rng: &mut Rng, map: &BTreeMap<u32, V>, fits: impl Fn(&V) -> bool) -> Option<u32> {
        let fitting: Vec<u32> = map.iter().filter(|(_, value)| fits(value)).map(|(n, _)| *n).collect();
        (!fitting.is_empty()).then(|| fitting[rng.below(fitting.len())])
    }

    fn act(&mut self) {
        match self.rng.below(16) {
            0..=2 => self.make_call(),
            3 => self.make_subscription(),
            4 => self.cancel(),
            5 => self.unsubscribe(),
            6 => self.give_credit(),
            7..=8 => self.answer(),
            9 => self.start_or_end_subscription(),
            10..=11 => self.send_item(),
            12 => self.ping(),
            13 => {
                let end = if self.rng.one_in(2) { &mut self.pair.client } else { &mut self.pair.server };
                end.is_blocked = !end.is_blocked;
            }
            14 if self.rng.one_in(20) => {
                self.pair.server.connection.go_away(ErrorCode::GOING_AWAY, Duration::ZERO).unwrap();
            }
            _ => {
                let most = Duration::from_millis(u64::try_from(self.rng.below(5_000)).unwrap());
                self.pair.drive_for(most);
                // A transport that takes nothing for 45 s ends the connection, which is another test.
                self.pair.client.is_blocked = false;
                self.pair.server.is_blocked = false;
            }
        }
        let steps = self.rng.below(4);
        self.pair.drive_some(steps);
        self.check();
    }

    fn make_call(&mut self) {
        let len = size(&mut self.rng);
        let args = self.rng.bytes(len);
        match self.pair.client.connection.call(&call("m", args.clone())) {
            Ok(stream) => {
                let call =
                    Call { args, answer: None, is_delivered: false, is_cancelled: false, is_answered: false };
                assert!(self.calls.insert(stream, call).is_none());
            }
            Err(ApiMisuse::TooManyStreams) => {}
            Err(ApiMisuse::GoingAway) => assert!(self.is_going_away),
            Err(other) => panic!("{other}"),
        }
    }

    fn make_subscription(&mut self) {
        let credit = self.rng.below(20);
        let asked = subscribe("t", u32::try_from(credit).unwrap());
        match self.pair.client.connection.subscribe(&asked) {
            Ok(stream) => {
                let credit = u64::try_from(credit).unwrap();
                let subscription = Subscription { is_waiting: true, credit, ..Subscription::default() };
                assert!(self.subscriptions.insert(stream, subscription).is_none());
            }
            Err(ApiMisuse::TooManyStreams) => {}
            Err(ApiMisuse::GoingAway) => assert!(self.is_going_away),
            Err(other) => panic!("{other}"),
        }
    }

    fn cancel(&mut self) {
        if let Some(stream) = Self::pick(&mut self.rng, &self.calls, |call| !call.is_answered) {
            self.pair.client.connection.cancel(stream).unwrap();
        }
    }

    fn unsubscribe(&mut self) {
        let fits = |s: &Subscription| s.is_waiting && !s.is_unsubscribed;
        if let Some(stream) = Self::pick(&mut self.rng, &self.subscriptions, fits) {
            self.pair.client.connection.unsubscribe(stream).unwrap();
            self.subscriptions.get_mut(&stream).unwrap().is_unsubscribed = true;
        }
    }

    fn give_credit(&mut self) {
        let fits = |s: &Subscription| s.is_waiting && !s.is_unsubscribed;
        if let Some(stream) = Self::pick(&mut self.rng, &self.subscriptions, fits) {
            let items = NonZeroU32::new(u32::try_from(1 + self.rng.below(30)).unwrap()).unwrap();
            self.pair.client.connection.credit(stream, items).unwrap();
            self.subscriptions.get_mut(&stream).unwrap().credit += u64::from(items.get());
        }
    }

    fn answer(&mut self) {
        let fits = |call: &Call| call.is_delivered && call.answer.is_none();
        let Some(stream) = Self::pick(&mut self.rng, &self.calls, fits) else { return };
        let server = &mut self.pair.server.connection;
        let answer = if self.rng.one_in(4) {
            server.respond_error(stream, &rpc_error(ErrorCode::NOT_FOUND, "none")).unwrap();
            Err(ErrorCode::NOT_FOUND)
        } else {
            let len = size(&mut self.rng);
            let result = self.rng.bytes(len);
            server.respond(stream, &response(result.clone())).unwrap();
            Ok(result)
        };
        self.calls.get_mut(&stream).unwrap().answer = Some(answer);
    }

    fn start_or_end_subscription(&mut self) {
        let Some(stream) = Self::pick(&mut self.rng, &self.subscriptions, |s| s.is_open) else { return };
        let subscription = self.subscriptions.get_mut(&stream).unwrap();
        let server = &mut self.pair.server.connection;
        if subscription.is_live && self.rng.one_in(3) {
            server.end_subscription(stream, &rpc_error(ErrorCode::LAGGED, "slow")).unwrap();
            subscription.is_open = false;
        } else {
            server.send_subscribed(stream, &subscribed("c")).unwrap();
            subscription.is_live = true;
        }
    }

    fn send_item(&mut self) {
        let Some(stream) = Self::pick(&mut self.rng, &self.subscriptions, |s| s.is_open) else { return };
        let subscription = self.subscriptions.get_mut(&stream).unwrap();
        let len = size(&mut self.rng);
        let item = event(subscription.count, self.rng.bytes(len));
        match self.pair.server.connection.send_event(stream, &item) {
            Ok(()) => {
                subscription.count += 1;
                assert!(subscription.count <= subscription.credit, "an item without credit");
                subscription.sent.push_back(item);
            }
            Err(ApiMisuse::NotSubscribed) => assert!(!subscription.is_live),
            Err(ApiMisuse::NoCredit) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn ping(&mut self) {
        let of = self.rng.below(2);
        let end = if of == 0 { &mut self.pair.client } else { &mut self.pair.server };
        if end.connection.heartbeat(self.pair.now).unwrap() {
            self.pings[of] += 1;
        }
    }

    /// Compares what both ends tell with what the observer knows.
    fn check(&mut self) {
        assert_eq!((self.pair.client.end(), self.pair.server.end()), (None, None));
        for event in self.pair.server.take() {
            match event {
                Event::Call(stream, call) => {
                    let known = self.calls.get_mut(&stream).expect("a call that was made");
                    assert!(call.args == known.args && !known.is_delivered, "call {stream}");
                    known.is_delivered = true;
                }
                Event::Cancelled(stream) => {
                    let known = self.calls.get_mut(&stream).expect("a call that was made");
                    assert!(known.is_delivered && known.answer.is_none() && !known.is_cancelled);
                    known.is_cancelled = true;
                }
                Event::Subscribe(stream, _) => self.subscriptions.get_mut(&stream).unwrap().is_open = true,
                Event::Unsubscribed(stream) => {
                    let known = self.subscriptions.get_mut(&stream).unwrap();
                    assert!(known.is_open && known.is_unsubscribed);
                    known.is_open = false;
                }
                Event::Credit(stream) => assert!(self.subscriptions[&stream].is_open),
                Event::HeartbeatEcho(_) => {}
                other => panic!("{other:?}"),
            }
        }
        for event in self.pair.client.take() {
            self.check_client(event);
        }
    }

    fn check_client(&mut self, event: Event) {
        match event {
            Event::Response(stream, answer) => {
                let known = self.calls.get_mut(&stream).expect("a call that was made");
                assert!(known.answer == Some(Ok(answer.result)) && !known.is_answered, "answer {stream}");
                known.is_answered = true;
            }
            Event::Error(stream, error) => {
                if let Some(known) = self.calls.get_mut(&stream) {
                    let expected = match &known.answer {
                        Some(Err(code)) => *code,
                        Some(Ok(_)) => ErrorCode::PAYLOAD_TOO_LARGE,
                        None => ErrorCode::GOING_AWAY,
                    };
                    assert!(error.code == expected && !known.is_answered, "{error:?}");
                    assert!(!known.is_delivered || known.answer.is_some());
                    known.is_answered = true;
                    return;
                }
                let known = self.subscriptions.get_mut(&stream).expect("a stream that was opened");
                assert!(known.is_waiting && !known.is_open && known.sent.is_empty(), "{known:?}");
                known.is_waiting = false;
            }
            Event::Subscribed(stream, _) => assert!(self.subscriptions[&stream].is_waiting),
            Event::Item(stream, item) => {
                let known = self.subscriptions.get_mut(&stream).expect("a stream that was opened");
                assert!(known.sent.pop_front() == Some(item), "an item out of order, altered, or twice");
            }
            Event::GoAway(_) => self.is_going_away = true,
            Event::HeartbeatEcho(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Lets everything come to its end, and looks whether anything is missing.
    fn finish(mut self) {
        self.pair.client.is_blocked = false;
        self.pair.server.is_blocked = false;
        self.pair.drive();
        self.check();
        while self.calls.values().any(|call| call.is_delivered && call.answer.is_none()) {
            self.answer();
        }
        self.pair.drive_bounded(100_000);
        self.check();
        assert!(self.calls.values().all(|call| call.is_answered), "a call without an answer");
        assert!(self.subscriptions.values().all(|s| s.sent.is_empty()), "an item that did not arrive");
        let open = self.subscriptions.values().filter(|s| s.is_waiting).count();
        assert_eq!(self.pair.client.connection.open_streams(), open);
        assert_eq!(self.pair.server.connection.open_streams(), open);
        assert_eq!(self.pair.client.connection.outbound_bytes(), 0);
        assert_eq!(self.pair.server.connection.outbound_bytes(), 0);
        let closer = if self.rng.one_in(2) { From::Client } else { From::Server };
        match closer {
            From::Client => self.pair.client.connection.close(ErrorCode::NO_ERROR, "done"),
            From::Server => self.pair.server.connection.close(ErrorCode::GOING_AWAY, "done"),
        }
        self.pair.drive();
        assert!(self.pair.client.end().is_some_and(|end| end.is_orderly()));
        assert!(self.pair.server.end().is_some_and(|end| end.is_orderly()));
    }
}

#[test]
fn random_work_on_random_networks_loses_and_alters_nothing() {
    let one = std::env::var("RAYSTREAM_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let _context = Context(format!("RAYSTREAM_SEED={seed}"));
        let mut world = World::new(seed);
        for _ in 0..ACTIONS {
            world.act();
        }
        world.finish();
    }
}
