//! A map by stream number.
//!
//! A table with open addressing and linear probing (Knuth, The Art of Computer Programming, 6.4, algorithm L, and R for
//! removal). Each call is put into such a map and taken out of it once or twice, and with the standard map that was a
//! twentieth of its time. A multiple of the golden ratio says where a stream is, which puts numbers that follow each other far
//! apart and evenly (6.4, theorem S), so that nearly every stream is found at the first look and few have others behind them.
//!
//! A peer can choose numbers that share their places, as with every hash that it knows. What it gains is that each frame on a
//! stream walks over its own open streams, of which there are no more than the limits of a connection allow.

/// What is known of each stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamMap<T> {
    /// A power of two of them, at most three quarters taken; none before the first stream.
    slots: Vec<Option<(u32, T)>>,
    len: usize,
}

impl<T> Default for StreamMap<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }
}

/// Slots of the first stream's table: an idle connection has no more.
const SLOTS_MIN: usize = 4;

/// 2^32 divided by the golden ratio, made odd.
const GOLDEN: u32 = 0x9e37_79b1;

/// Where a stream is among so many slots, a power of two from 2 to 2^32, if nobody is there before it.
fn home(stream: u32, slots: usize) -> usize {
    // The numbers of one side are all odd, or all even.
    let spread = (stream / 2).wrapping_mul(GOLDEN) >> (u32::BITS - slots.trailing_zeros());
    usize::try_from(spread).expect("an address has 32 bits or more")
}

impl<T> StreamMap<T> {
    /// Streams in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, stream: u32) -> bool {
        self.find(stream).is_some()
    }

    pub(crate) fn get(&self, stream: u32) -> Option<&T> {
        self.find(stream).and_then(|at| self.slots[at].as_ref()).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, stream: u32) -> Option<&mut T> {
        self.find(stream).and_then(|at| self.slots[at].as_mut()).map(|(_, value)| value)
    }

    /// Puts a value in, and gives the one that was there.
    pub(crate) fn insert(&mut self, stream: u32, value: T) -> Option<T> {
        if self.len >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = home(stream, self.slots.len());
        loop {
            match &mut self.slots[at] {
                Some((other, old)) if *other == stream => return Some(std::mem::replace(old, value)),
                Some(_) => at = (at + 1) & mask,
                free @ None => {
                    *free = Some((stream, value));
                    self.len += 1;
                    return None;
                }
            }
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, stream: u32) -> Option<T> {
        self.remove_if(stream, |_| true)
    }

    /// Takes a value out, if it is one that is meant.
    pub(crate) fn remove_if(&mut self, stream: u32, is_meant: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut free = self.find(stream)?;
        let (_, value) = self.slots[free].take_if(|(_, value)| is_meant(value))?;
        self.len -= 1;
        // Those behind it that were turned away here move up, so that no search ends too early.
        let mask = self.slots.len() - 1;
        let mut at = (free + 1) & mask;
        while let Some((other, _)) = &self.slots[at] {
            let from_home = at.wrapping_sub(home(*other, self.slots.len())) & mask;
            if from_home >= at.wrapping_sub(free) & mask {
                self.slots.swap(free, at);
                free = at;
            }
            at = (at + 1) & mask;
        }
        Some(value)
    }

    /// Every stream with its value, in no order.
    #[cfg(any(feature = "client", test))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().flatten().map(|(stream, value)| (*stream, value))
    }

    /// Takes everything out, in no order.
    #[cfg(any(feature = "client", test))]
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (u32, T)> + use<T> {
        std::mem::take(self).slots.into_iter().flatten()
    }

    /// Where a stream is. A free slot ends every search, because there is always one.
    fn find(&self, stream: u32) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = home(stream, self.slots.len());
        loop {
            match &self.slots[at] {
                Some((other, _)) if *other == stream => return Some(at),
                Some(_) => at = (at + 1) & mask,
                None => return None,
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, std::iter::repeat_with(|| None).take(slots).collect());
        self.len = 0;
        for (stream, value) in old.into_iter().flatten() {
            self.insert(stream, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn does_what_a_map_does(
            steps in prop::collection::vec((0_u8..4, prop_oneof![0_u32..40, (0_u32..12).prop_map(|n| n * 64), any::<u32>()]), 0..400)
        ) {
            let (mut map, mut model) = (StreamMap::default(), BTreeMap::new());
            for (value, (kind, stream)) in (0_u32..).zip(steps) {
                match kind {
                    0 => prop_assert_eq!(map.insert(stream, value), model.insert(stream, value)),
                    1 => prop_assert_eq!(map.remove(stream), model.remove(&stream)),
                    2 => {
                        let is_even = |value: &u32| value.is_multiple_of(2);
                        let expected = model.get(&stream).copied().filter(is_even);
                        prop_assert_eq!(map.remove_if(stream, is_even), expected);
                        if expected.is_some() {
                            model.remove(&stream);
                        }
                    }
                    _ => prop_assert_eq!(map.get_mut(stream), model.get_mut(&stream)),
                }
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(map.contains(stream), model.contains_key(&stream));
                prop_assert!(map.len() <= map.slots.len() / 4 * 3);
            }
            let mut all: Vec<_> = map.iter().map(|(stream, value)| (stream, *value)).collect();
            all.sort_unstable();
            prop_assert!(all.iter().copied().eq(model.iter().map(|(stream, value)| (*stream, *value))));
            prop_assert!(model.iter().all(|(stream, value)| map.get(*stream) == Some(value)));
            prop_assert_eq!((map.take_all().count(), map.len()), (model.len(), 0));
        }
    }

    #[test]
    fn streams_that_follow_each_other_are_found_at_the_first_look() {
        for in_flight in [1, 16, 64, 96, 256, 384] {
            let mut map = StreamMap::default();
            for n in 0..2_000 {
                map.insert(2 * n + 1, ());
                if n >= in_flight {
                    map.remove(2 * (n - in_flight) + 1);
                }
            }
            let slots = map.slots.len();
            let away =
                map.iter().filter(|(stream, ())| map.find(*stream) != Some(home(*stream, slots))).count();
            let longest = map.slots.split(Option::is_none).map(<[_]>::len).max().unwrap();
            assert!(
                away * 4 <= map.len() && longest <= 4,
                "{in_flight} in {slots}: {away} away, {longest} in a row"
            );
        }
    }
}
