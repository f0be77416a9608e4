//! What the primitives and the handshakes cost with each provider.
//!
//! `cargo bench --bench noise` prints medians, and how many times faster `aws_lc` is than `rust_crypto`. The providers
//! take turns within a measurement, so that a noisy neighbour troubles both alike: criterion, which measures the rest, takes
//! one case after the other, and its ratios of minutes apart say as much about the neighbour as about the providers.
#![allow(clippy::print_stdout, reason = "the table is the purpose")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use raystream::noise::{
    CipherAlgorithm, CryptoProvider, HandshakeParameters, HandshakeState, Pattern, Role, StaticSecret,
    rust_crypto,
};

/// Rounds of each measurement: an odd number, so that there is a middle one.
const ROUNDS: usize = 101;
/// A round repeats its operation for about this long, so that reading the clock weighs nothing.
const ROUND_TIME: Duration = Duration::from_millis(2);

fn providers() -> Vec<&'static dyn CryptoProvider> {
    vec![
        rust_crypto(),
        #[cfg(feature = "server")]
        raystream::noise::aws_lc(),
    ]
}

/// How many repetitions take [`ROUND_TIME`].
fn calibrate(operation: &mut dyn FnMut()) -> u32 {
    let mut repetitions = 1;
    loop {
        let time = time(operation, repetitions);
        if time >= ROUND_TIME {
            return repetitions;
        }
        repetitions *= 2;
    }
}

fn time(operation: &mut dyn FnMut(), repetitions: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..repetitions {
        operation();
    }
    start.elapsed()
}

/// Measures one operation, given per provider, and prints a line.
fn measure<'a>(name: &str, mut make: impl FnMut(&'static dyn CryptoProvider) -> Box<dyn FnMut() + 'a>) {
    let mut operations: Vec<_> = providers().into_iter().map(&mut make).collect();
    let repetitions: Vec<u32> = operations.iter_mut().map(|operation| calibrate(operation)).collect();
    let mut rounds = vec![Vec::with_capacity(ROUNDS); operations.len()];
    for _ in 0..ROUNDS {
        for ((operation, repetitions), times) in operations.iter_mut().zip(&repetitions).zip(&mut rounds) {
            times.push(time(operation, *repetitions).as_secs_f64() / f64::from(*repetitions));
        }
    }
    let medians: Vec<f64> = rounds
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        })
        .collect();
    let figures: Vec<String> = medians.iter().map(|seconds| format!("{:>10.3} µs", seconds * 1e6)).collect();
    let ratio = if let [first, second] = medians.as_slice() {
        format!("{:>6.2}", first / second)
    } else {
        String::new()
    };
    println!("{name:<28} {} {ratio}", figures.join(" "));
}

/// Both sides of a handshake in one thread, from the parameters to the transport keys.
fn handshake(
    provider: &'static dyn CryptoProvider,
    pattern: Pattern,
    cipher: CipherAlgorithm,
    keys: &[StaticSecret; 2],
) {
    let [client, server] = keys;
    let parameters = |role, e| HandshakeParameters {
        provider,
        pattern,
        cipher,
        role,
        prologue: b"raystream-v1",
        s: match role {
            Role::Initiator => (pattern == Pattern::IK).then_some(client),
            Role::Responder => Some(server),
        },
        e: StaticSecret::from_bytes([e; 32]),
        rs: (role == Role::Initiator).then(|| server.public_key(provider)),
        psks: &[],
    };
    let mut initiator =
        HandshakeState::new(parameters(Role::Initiator, 3)).expect("the keys fit the pattern");
    let mut responder =
        HandshakeState::new(parameters(Role::Responder, 4)).expect("the keys fit the pattern");
    let (mut message, mut payload) = (Vec::new(), Vec::new());
    initiator.write_message(&[], &mut message).expect("it is the initiator's turn");
    responder.read_message(&message, &mut payload).expect("the message is intact");
    message.clear();
    responder.write_message(&[0; 64], &mut message).expect("it is the responder's turn");
    initiator.read_message(&message, &mut payload).expect("the message is intact");
    black_box(initiator.into_transport().expect("the handshake is finished"));
    black_box(responder.into_transport().expect("the handshake is finished"));
}

fn main() {
    let names: Vec<String> = providers().iter().map(|provider| format!("{:>13}", provider.name())).collect();
    println!("{:<28} {}  ratio", "median of 101", names.join(" "));
    let ciphers = [CipherAlgorithm::ChaChaPoly, CipherAlgorithm::AesGcm];
    for cipher in ciphers {
        for length in [64, 1_024, 16_384] {
            measure(&format!("{} seal {length} B", cipher.name()), |provider| {
                let (key, mut text) = (provider.aead(cipher, &[1; 32]), vec![2; length]);
                Box::new(move || {
                    black_box(key.seal_in_place(&[3; 12], &[], black_box(&mut text)));
                })
            });
            measure(&format!("{} open {length} B", cipher.name()), |provider| {
                let key = provider.aead(cipher, &[1; 32]);
                let mut ciphertext = vec![2; length];
                let tag = key.seal_in_place(&[3; 12], &[], &mut ciphertext);
                let mut text = ciphertext.clone();
                Box::new(move || {
                    // The copy is part of the figure; it is small beside the rest.
                    text.copy_from_slice(&ciphertext);
                    key.open_in_place(&[3; 12], &[], black_box(&mut text), &tag).expect("the text is intact");
                })
            });
        }
        measure(&format!("{} new key", cipher.name()), |provider| {
            Box::new(move || drop(black_box(provider.aead(cipher, black_box(&[1; 32])))))
        });
    }
    measure("X25519", |provider| {
        let public = provider.public_key(&[2; 32]);
        Box::new(move || {
            black_box(provider.dh(black_box(&[1; 32]), &public).expect("the public key is of full order"));
        })
    });
    measure("X25519 public key", |provider| {
        Box::new(move || {
            black_box(provider.public_key(black_box(&[1; 32])));
        })
    });
    for pattern in [Pattern::NK, Pattern::IK] {
        for cipher in ciphers {
            let keys = [1, 2].map(|byte| StaticSecret::from_bytes([byte; 32]));
            let name = format!("{} {} both sides", pattern.handshake_pattern().name(), cipher.name());
            measure(&name, |provider| {
                let keys = keys.clone();
                Box::new(move || handshake(provider, pattern, cipher, &keys))
            });
        }
    }
}
