//! Heartbeats, idle timeout, age of keys: hours of virtual time.

use crate::support::{
    Setup, call, for_each_suite,
    pair::{From, Pair},
    response,
};
use raystream::{
    conn::{ApiMisuse, ConnectionError, Event, Limits},
    wire::{
        ErrorCode,
        control::{Close, GoAway},
        limits::{HEARTBEAT_INTERVAL, HEARTBEATS_OUTSTANDING_MAX, IDLE_TIMEOUT, KEY_AGE_MAX},
    },
};
use std::time::Duration;

#[test]
fn heartbeats_keep_a_quiet_connection_alive_both_ways() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let before = pair.records.len();
        pair.drive_for(Duration::from_secs(600));
        assert!(pair.client.connection.is_open() && pair.server.connection.is_open());
        let echoes = |events: Vec<Event>, rtt: Duration| {
            assert!(events.iter().all(|event| *event == Event::HeartbeatEcho(rtt)), "{events:?}");
            events.len()
        };
        let (client, server) = (pair.client.take(), pair.server.take());
        let rtt = pair.latency * 2;
        // An echo is something sent: one side's HEARTBEAT spares the other's.
        let pings = echoes(client, rtt) + echoes(server, rtt);
        assert!((39..=80).contains(&pings), "{pings} in 600 s");
        assert_eq!(pair.records.len() - before, 2 * pings);
    });
}

#[test]
fn each_side_sends_a_heartbeat_after_its_own_silence() {
    for silent in [From::Client, From::Server] {
        let mut pair = Pair::connected(Setup::plain());
        let start = pair.now;
        // The other side's records are lost: only this side's timer is seen.
        let last = pair.records.iter().rev().find(|record| record.from == silent).unwrap().at;
        let (this, lost) = match silent {
            From::Client => (&mut pair.client, From::Client),
            From::Server => (&mut pair.server, From::Server),
        };
        assert_eq!(this.connection.poll_timeout(), Some(last + HEARTBEAT_INTERVAL));
        let other = if lost == From::Client { &mut pair.server } else { &mut pair.client };
        other.is_blocked = true;
        pair.drive_until(start + HEARTBEAT_INTERVAL + Duration::from_secs(1));
        let sent: Vec<_> = pair.records.iter().filter(|record| record.at > start).collect();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].from, sent[0].at), (silent, last + HEARTBEAT_INTERVAL));
    }
}

#[test]
fn a_silent_peer_is_given_up() {
    for_each_suite(|setup| {
        let (suite, framing) = (setup.client.suites[0], setup.framing);
        drop(setup);
        for silent in [From::Client, From::Server] {
            let mut pair = Pair::connected(Setup::new(suite, framing));
            let other = match silent {
                From::Client => &mut pair.client,
                From::Server => &mut pair.server,
            };
            other.is_blocked = true;
            let last = pair.records.iter().rev().find(|record| record.from == silent).unwrap().at;
            let heard = last + pair.latency;
            pair.drive_until(heard + IDLE_TIMEOUT - Duration::from_nanos(1));
            let waiting = if silent == From::Client { &pair.server } else { &pair.client };
            assert!(waiting.connection.is_open());
            pair.drive_until(heard + IDLE_TIMEOUT);
            let waiting = if silent == From::Client { &pair.server } else { &pair.client };
            assert_eq!(waiting.end(), Some(ConnectionError::IdleTimeout));
            // It says why, in case the other side can still hear.
            pair.drive_for(Duration::from_secs(1));
            let silent = if silent == From::Client { &pair.client } else { &pair.server };
            let told = Close { code: ErrorCode::IDLE_TIMEOUT, reason: String::new() };
            assert_eq!(silent.end(), Some(ConnectionError::ClosedByPeer(told)));
        }
    });
}

#[test]
fn a_blocked_transport_does_not_stop_the_clock() {
    // The client cannot send, the server keeps talking: timers run, and the clock goes on.
    let mut pair = Pair::connected(Setup::plain());
    pair.client.is_blocked = true;
    for _ in 0..20 {
        pair.drive_for(Duration::from_secs(2));
        pair.server.connection.heartbeat(pair.now).unwrap();
    }
    pair.client.is_blocked = false;
    pair.drive();
    assert!(pair.client.connection.is_open() && pair.server.connection.is_open());
}

#[test]
fn only_so_many_heartbeats_wait_for_an_echo() {
    let mut pair = Pair::connected(Setup::plain());
    for _ in 0..HEARTBEATS_OUTSTANDING_MAX {
        assert_eq!(pair.client.connection.heartbeat(pair.now), Ok(true));
    }
    assert_eq!(pair.client.connection.heartbeat(pair.now), Ok(false));
    pair.drive();
    assert_eq!(pair.client.take().len(), HEARTBEATS_OUTSTANDING_MAX);
    assert_eq!(pair.client.connection.heartbeat(pair.now), Ok(true));
}

/// When the server asked for new keys and when it closed, after its handshake.
fn renewal(spread: u8) -> (Duration, Duration) {
    let mut setup = Setup::plain();
    setup.connection_id[0] = spread;
    let mut pair = Pair::new(setup);
    let mut asked = None;
    while pair.client.end().is_none() {
        pair.drive_for(Duration::from_secs(10));
        for event in pair.client.take() {
            if let Event::GoAway(go_away) = event {
                assert_eq!(go_away, GoAway { delay_ms: 0, last_stream: 1, code: ErrorCode::SESSION_EXPIRED });
                assert!(asked.replace(pair.now).is_none());
                assert_eq!(pair.client.connection.call(&call("m", "")), Err(ApiMisuse::GoingAway));
                // A call that was taken still gets its answer.
                pair.server.connection.respond(1, &response("late")).unwrap();
            }
        }
        if pair.client.connection.open_streams() == 0 && asked.is_none() {
            pair.client.connection.call(&call("slow", "")).unwrap();
        }
    }
    let expired = Close { code: ErrorCode::SESSION_EXPIRED, reason: "the keys are too old".to_owned() };
    assert_eq!(pair.client.end(), Some(ConnectionError::ClosedByPeer(expired.clone())));
    assert_eq!(pair.server.end(), Some(ConnectionError::ClosedHere(expired)));
    assert!(pair.client.end().unwrap().is_orderly());
    (asked.unwrap(), pair.now)
}

#[test]
fn keys_are_renewed_after_a_day_more_or_less() {
    let tick = Duration::from_secs(20);
    for (spread, tenths) in [(0, 9), (255, 11)] {
        let (asked, closed) = renewal(spread);
        let due = KEY_AGE_MAX * tenths / 10;
        assert!(asked >= due - tick && asked <= due + tick, "{asked:?} instead of {due:?}");
        let grace = closed - asked;
        assert!(grace >= Duration::from_secs(20) && grace <= Duration::from_secs(40), "{grace:?}");
    }
}

#[test]
fn a_client_beats_as_often_as_the_server_needs() {
    let mut setup = Setup::plain();
    setup.server.limits.idle_timeout = Duration::from_secs(6);
    setup.server.limits.heartbeat_interval = Duration::from_secs(2);
    setup.client.limits.heartbeat_interval = Duration::from_secs(60);
    setup.client.limits.idle_timeout = Duration::from_secs(180);
    let mut pair = Pair::connected(setup);
    pair.server.is_blocked = true;
    pair.drive_for(Duration::from_secs(60));
    assert!(pair.server.connection.is_open(), "{:?}", pair.server.end());
}

#[test]
fn timers_that_cannot_work_are_refused() {
    let with = |change: fn(&mut Limits)| {
        let mut setup = Setup::plain();
        change(&mut setup.server.limits);
        change(&mut setup.client.limits);
        (setup.server.check(), setup.client.check())
    };
    let changes: [fn(&mut Limits); 4] = [
        |limits| limits.heartbeat_interval = Duration::ZERO,
        |limits| limits.idle_timeout = limits.heartbeat_interval,
        |limits| limits.handshake_deadline = Duration::ZERO,
        |limits| limits.key_age_max = Duration::ZERO,
    ];
    for change in changes {
        let (server, client) = with(change);
        assert!(matches!(server, Err(ApiMisuse::Configuration(_))));
        assert!(matches!(client, Err(ApiMisuse::Configuration(_))));
    }
    assert_eq!(with(|_| {}), (Ok(()), Ok(())));
    // No timer at all is allowed, and overflows nowhere.
    let mut setup = Setup::plain();
    for limits in [&mut setup.client.limits, &mut setup.server.limits] {
        limits.idle_timeout = Duration::MAX;
        limits.handshake_deadline = Duration::MAX;
        limits.key_age_max = Duration::MAX;
    }
    let mut pair = Pair::connected(setup);
    pair.drive_for(Duration::from_secs(100_000));
    assert!(pair.client.connection.is_open());
}
