//! The other patterns of the specification: one-way (section 7.4), interactive (7.5), deferred (7.6 and appendix
//! 18.1), with the `psk` modifiers (section 9) that the published vectors use.
//!
//! raystream speaks none of them. They are here because the published vectors of all of them run through the same
//! engine, and an error that one pattern hides another shows. A program that does not call
//! [`HandshakePattern::by_name`] is linked without them.

use super::pattern::{HandshakePattern, Pattern, handshake_pattern};

impl HandshakePattern {
    /// The pattern with this name and modifiers, such as `XXpsk0+psk3`: for conformance tests. A connection names its
    /// pattern by [`Pattern`].
    pub fn by_name(name: &str) -> Option<&'static HandshakePattern> {
        let products = Pattern::ALL.into_iter().map(Pattern::handshake_pattern);
        products.chain(&CATALOGUE).find(|pattern| pattern.name == name)
    }
}

#[rustfmt::skip]
static CATALOGUE: [HandshakePattern; 67] = [
    // Section 7.4: one-way.
    handshake_pattern!("N", [], [S], [E Es]),
    handshake_pattern!("K", [S], [S], [E Es Ss]),
    handshake_pattern!("X", [], [S], [E Es S Ss]),
    // Section 7.5: interactive.
    handshake_pattern!("NN", [], [], [E] [E Ee]),
    handshake_pattern!("XN", [], [], [E] [E Ee] [S Se]),
    handshake_pattern!("XK", [], [S], [E Es] [E Ee] [S Se]),
    handshake_pattern!("XX", [], [], [E] [E Ee S Es] [S Se]),
    handshake_pattern!("KN", [S], [], [E] [E Ee Se]),
    handshake_pattern!("KK", [S], [S], [E Es Ss] [E Ee Se]),
    handshake_pattern!("KX", [S], [], [E] [E Ee Se S Es]),
    handshake_pattern!("IN", [], [], [E S] [E Ee Se]),
    handshake_pattern!("IX", [], [], [E S] [E Ee Se S Es]),
    // Section 7.6: deferred.
    handshake_pattern!("NK1", [], [S], [E] [E Ee Es]),
    handshake_pattern!("NX1", [], [], [E] [E Ee S] [Es]),
    handshake_pattern!("X1N", [], [], [E] [E Ee] [S] [Se]),
    handshake_pattern!("X1K", [], [S], [E Es] [E Ee] [S] [Se]),
    handshake_pattern!("XK1", [], [S], [E] [E Ee Es] [S Se]),
    handshake_pattern!("X1K1", [], [S], [E] [E Ee Es] [S] [Se]),
    handshake_pattern!("X1X", [], [], [E] [E Ee S Es] [S] [Se]),
    handshake_pattern!("XX1", [], [], [E] [E Ee S] [Es S Se]),
    handshake_pattern!("X1X1", [], [], [E] [E Ee S] [Es S] [Se]),
    handshake_pattern!("K1N", [S], [], [E] [E Ee] [Se]),
    handshake_pattern!("K1K", [S], [S], [E Es] [E Ee] [Se]),
    handshake_pattern!("KK1", [S], [S], [E] [E Ee Se Es]),
    handshake_pattern!("K1K1", [S], [S], [E] [E Ee Es] [Se]),
    handshake_pattern!("K1X", [S], [], [E] [E Ee S Es] [Se]),
    handshake_pattern!("KX1", [S], [], [E] [E Ee Se S] [Es]),
    handshake_pattern!("K1X1", [S], [], [E] [E Ee S] [Se Es]),
    handshake_pattern!("I1N", [], [], [E S] [E Ee] [Se]),
    handshake_pattern!("I1K", [], [S], [E Es S] [E Ee] [Se]),
    handshake_pattern!("IK1", [], [S], [E S] [E Ee Se Es]),
    handshake_pattern!("I1K1", [], [S], [E S] [E Ee Es] [Se]),
    handshake_pattern!("I1X", [], [], [E S] [E Ee S Es] [Se]),
    handshake_pattern!("IX1", [], [], [E S] [E Ee Se S] [Es]),
    handshake_pattern!("I1X1", [], [], [E S] [E Ee S] [Se Es]),
    // Section 9: with pre-shared keys.
    handshake_pattern!("Npsk0", [], [S], [Psk E Es]),
    handshake_pattern!("Kpsk0", [S], [S], [Psk E Es Ss]),
    handshake_pattern!("Xpsk1", [], [S], [E Es S Ss Psk]),
    handshake_pattern!("NNpsk0", [], [], [Psk E] [E Ee]),
    handshake_pattern!("NNpsk0+psk2", [], [], [Psk E] [E Ee Psk]),
    handshake_pattern!("NNpsk2", [], [], [E] [E Ee Psk]),
    handshake_pattern!("NKpsk0", [], [S], [Psk E Es] [E Ee]),
    handshake_pattern!("NXpsk0+psk1+psk2", [], [], [Psk E Psk] [E Ee S Es Psk]),
    handshake_pattern!("NXpsk2", [], [], [E] [E Ee S Es Psk]),
    handshake_pattern!("XNpsk1+psk3", [], [], [E Psk] [E Ee] [S Se Psk]),
    handshake_pattern!("XNpsk3", [], [], [E] [E Ee] [S Se Psk]),
    handshake_pattern!("XKpsk0+psk3", [], [S], [Psk E Es] [E Ee] [S Se Psk]),
    handshake_pattern!("XKpsk3", [], [S], [E Es] [E Ee] [S Se Psk]),
    handshake_pattern!("XXpsk0+psk1", [], [], [Psk E Psk] [E Ee S Es] [S Se]),
    handshake_pattern!("XXpsk0+psk1+psk2+psk3", [], [], [Psk E Psk] [E Ee S Es Psk] [S Se Psk]),
    handshake_pattern!("XXpsk0+psk2", [], [], [Psk E] [E Ee S Es Psk] [S Se]),
    handshake_pattern!("XXpsk0+psk3", [], [], [Psk E] [E Ee S Es] [S Se Psk]),
    handshake_pattern!("XXpsk3", [], [], [E] [E Ee S Es] [S Se Psk]),
    handshake_pattern!("KNpsk0", [S], [], [Psk E] [E Ee Se]),
    handshake_pattern!("KNpsk1+psk2", [S], [], [E Psk] [E Ee Se Psk]),
    handshake_pattern!("KNpsk2", [S], [], [E] [E Ee Se Psk]),
    handshake_pattern!("KKpsk0", [S], [S], [Psk E Es Ss] [E Ee Se]),
    handshake_pattern!("KKpsk0+psk2", [S], [S], [Psk E Es Ss] [E Ee Se Psk]),
    handshake_pattern!("KKpsk2", [S], [S], [E Es Ss] [E Ee Se Psk]),
    handshake_pattern!("KXpsk2", [S], [], [E] [E Ee Se S Es Psk]),
    handshake_pattern!("INpsk1", [], [], [E S Psk] [E Ee Se]),
    handshake_pattern!("INpsk1+psk2", [], [], [E S Psk] [E Ee Se Psk]),
    handshake_pattern!("INpsk2", [], [], [E S] [E Ee Se Psk]),
    handshake_pattern!("IKpsk0+psk2", [], [S], [Psk E Es S Ss] [E Ee Se Psk]),
    handshake_pattern!("IKpsk1", [], [S], [E Es S Ss Psk] [E Ee Se]),
    handshake_pattern!("IXpsk0+psk2", [], [], [Psk E S] [E Ee Se S Es Psk]),
    handshake_pattern!("IXpsk2", [], [], [E S] [E Ee Se S Es Psk]),
];
