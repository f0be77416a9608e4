//! Who may take a place: connection permits, half-open places, and the rate of handshakes per address.

use super::config::LimitsConfig;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Addresses remembered for their rate before idle ones are swept out.
const ADDRESSES_SWEEP_AT: usize = 4_096;

/// A connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    /// Every half-open place is taken.
    #[error("too many handshakes are under way")]
    HalfOpen,
    /// This address has its share of half-open places.
    #[error("too many handshakes are under way from this address")]
    HalfOpenPerAddress,
    /// This address starts handshakes too fast.
    #[error("too many handshakes from this address")]
    Rate,
}

/// Places of the whole daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    connections: Arc<Semaphore>,
    connections_max: u32,
    half_open: Arc<Semaphore>,
    half_open_per_address: u32,
    rate_per_second: f64,
    burst: f64,
    addresses: Arc<Mutex<HashMap<IpAddr, Address>>>,
}

/// 0 <= `tokens` <= burst.
#[derive(Debug)]
struct Address {
    half_open: u32,
    tokens: f64,
    refilled_at: Duration,
}

/// A place among the half-open connections; given back when dropped.
#[derive(Debug)]
pub(super) struct HalfOpen {
    admission: Admission,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// The places that the limits give.
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(usize::MAX >> 3)));
        Self {
            connections: places(limits.connections),
            connections_max: limits.connections,
            half_open: places(limits.half_open),
            half_open_per_address: limits.half_open_per_ip,
            rate_per_second: f64::from(limits.handshakes_per_ip_per_second),
            burst: f64::from(limits.handshakes_per_ip_burst),
            addresses: Arc::default(),
        }
    }

    /// Waits for a place for one more connection. Taken before accept, so that the backlog, not memory, holds the rest.
    pub(super) async fn connection(&self) -> OwnedSemaphorePermit {
        self.connections.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits until no connection has its place any more. For the end, when no new ones are let in: it takes them all.
    pub(super) async fn all_connections_ended(&self) {
        let _all = self.connections.acquire_many(self.connections_max).await;
    }

    /// Takes a half-open place for an address. Loopback is counted in the whole but has no share and no rate: whoever
    /// is on the machine has shorter ways to load it, and all clients behind a local proxy share the address.
    ///
    /// # Errors
    /// [`TurnedAway`].
    pub(super) fn half_open(&self, address: IpAddr, now: Duration) -> Result<HalfOpen, TurnedAway> {
        let permit = self.half_open.clone().try_acquire_owned().map_err(|_| TurnedAway::HalfOpen)?;
        let address = address.to_canonical();
        if !address.is_loopback() {
            let mut addresses = self.lock();
            if addresses.len() >= ADDRESSES_SWEEP_AT {
                self.sweep(&mut addresses, now);
            }
            let fresh = Address { half_open: 0, tokens: self.burst, refilled_at: now };
            let entry = addresses.entry(address).or_insert(fresh);
            entry.tokens = self.refilled(entry, now);
            entry.refilled_at = now;
            if entry.tokens < 1.0 {
                return Err(TurnedAway::Rate);
            }
            if entry.half_open >= self.half_open_per_address {
                return Err(TurnedAway::HalfOpenPerAddress);
            }
            entry.tokens -= 1.0;
            entry.half_open += 1;
        }
        Ok(HalfOpen { admission: self.clone(), address, _permit: permit })
    }

    fn refilled(&self, address: &Address, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(address.refilled_at).as_secs_f64();
        (address.tokens + elapsed * self.rate_per_second).min(self.burst)
    }

    fn sweep(&self, addresses: &mut HashMap<IpAddr, Address>, now: Duration) {
        addresses.retain(|_, address| address.half_open > 0 || self.refilled(address, now) < self.burst);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        // Each entry is whole between statements, so a panic elsewhere leaves nothing half done here.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        if let Some(entry) = self.admission.lock().get_mut(&self.address) {
            entry.half_open = entry.half_open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        Admission::new(&LimitsConfig {
            half_open: 8,
            half_open_per_ip: 2,
            handshakes_per_ip_per_second: 1,
            handshakes_per_ip_burst: 3,
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn an_address_has_a_share_and_a_rate() {
        let (admission, now) = (admission(), Duration::ZERO);
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = admission.half_open(address, now).unwrap();
        let _second = admission.half_open(address, now).unwrap();
        assert_eq!(admission.half_open(address, now).unwrap_err(), TurnedAway::HalfOpenPerAddress);
        drop(first);
        let third = admission.half_open(address, now).unwrap();
        drop(third);
        assert_eq!(admission.half_open(address, now).unwrap_err(), TurnedAway::Rate);
        assert!(admission.half_open(address, Duration::from_secs(1)).is_ok());
        assert!(admission.half_open(IpAddr::from([192, 0, 2, 2]), now).is_ok(), "others are not concerned");
    }

    #[test]
    fn loopback_has_no_share_but_the_whole_has_an_end() {
        let (admission, now) = (admission(), Duration::ZERO);
        let places: Vec<_> =
            (0..8).map(|_| admission.half_open(IpAddr::from([127, 0, 0, 1]), now).unwrap()).collect();
        let turned_away = admission.half_open(IpAddr::from([127, 0, 0, 1]), now).unwrap_err();
        assert_eq!(turned_away, TurnedAway::HalfOpen);
        drop(places);
        assert!(admission.half_open(IpAddr::from([127, 0, 0, 1]), now).is_ok());
    }
}
