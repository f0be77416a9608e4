//! A queue that is fair to lanes: whoever has many things in it waits for his own, not the others for his.

use std::collections::{HashMap, VecDeque};

use super::scope::Lane;

/// Things that wait, each in a lane; the lanes that have any are taken in turn.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lanes: HashMap<Lane, VecDeque<T>>,
    /// Every lane that has something, once: the next one first.
    turns: VecDeque<Lane>,
    len: usize,
}

/// What becomes of a thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// It is taken.
    Yes,
    /// It goes on waiting; the next one of its lane is looked at.
    No,
    /// It goes on waiting, and so does all of its lane.
    NoneOfLane,
    /// Nothing more is taken, this neither.
    Stop,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds behind everything of its lane.
    pub(super) fn push(&mut self, lane: Lane, item: T) {
        let items = self.lanes.entry(lane).or_default();
        if items.is_empty() {
            self.turns.push_back(lane);
        }
        items.push_back(item);
        self.len += 1;
    }

    /// Adds before everything: what was taken once does not wait anew.
    pub(super) fn push_front(&mut self, lane: Lane, item: T) {
        let items = self.lanes.entry(lane).or_default();
        if items.is_empty() {
            self.turns.push_front(lane);
        }
        items.push_front(item);
        self.len += 1;
    }

    /// The next one of the lane whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let lane = self.turns.pop_front()?;
        let items = self.lanes.get_mut(&lane).expect("a lane with a turn has items");
        let item = items.pop_front();
        if items.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        self.len -= 1;
        item
    }

    /// Takes several: the lanes in turn, of each the first one that is wanted. A lane of which something was passed over
    /// has its turn first the next time.
    pub(super) fn take_some(&mut self, mut judge: impl FnMut(&T) -> Take) -> Vec<T> {
        let mut taken = Vec::new();
        // Lanes of which nothing more is wanted now, and of the others how many were looked at and left.
        let mut passed = VecDeque::new();
        let mut looked: HashMap<Lane, usize> = HashMap::new();
        'turns: while let Some(lane) = self.turns.pop_front() {
            let items = self.lanes.get_mut(&lane).expect("a lane with a turn has items");
            let mut at = looked.get(&lane).copied().unwrap_or(0);
            loop {
                match items.get(at).map(&mut judge) {
                    Some(Take::Yes) => break,
                    Some(Take::No) => at += 1,
                    Some(Take::Stop) => {
                        self.turns.push_front(lane);
                        break 'turns;
                    }
                    None | Some(Take::NoneOfLane) => {
                        passed.push_back(lane);
                        continue 'turns;
                    }
                }
            }
            taken.extend(items.remove(at));
            self.len -= 1;
            if items.is_empty() {
                self.lanes.remove(&lane);
            } else {
                if at > 0 {
                    looked.insert(lane, at);
                }
                self.turns.push_back(lane);
            }
        }
        passed.append(&mut self.turns);
        self.turns = passed;
        taken
    }

    /// Takes one out of its lane.
    pub(super) fn remove(&mut self, lane: Lane, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let items = self.lanes.get_mut(&lane)?;
        let at = items.iter().position(is_it)?;
        let item = items.remove(at);
        if items.is_empty() {
            self.lanes.remove(&lane);
            self.turns.retain(|other| *other != lane);
        }
        self.len -= 1;
        item
    }

    /// Whether it is there.
    pub(super) fn contains(&self, lane: Lane, is_it: impl Fn(&T) -> bool) -> bool {
        self.lanes.get(&lane).is_some_and(|items| items.iter().any(is_it))
    }

    /// How many lanes have their turn before it, if it is the first of its own.
    pub(super) fn turn(&self, lane: Lane, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        self.lanes.get(&lane)?.front().filter(|item| is_it(item))?;
        self.turns.iter().position(|other| *other == lane)
    }

    /// Takes the newest one of the lane that has the most, if that is more than one more than `lane` has: the room of
    /// somebody who has much for somebody who has little.
    pub(super) fn take_from_longest(&mut self, lane: Lane) -> Option<T> {
        let own = self.lanes.get(&lane).map_or(0, VecDeque::len);
        let longest = self.lanes.iter().max_by_key(|(_, items)| items.len())?;
        let from = (longest.1.len() > own + 1).then_some(*longest.0)?;
        let item = self.lanes.get_mut(&from).expect("it was just found").pop_back();
        self.len -= 1;
        item
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(self).lanes.into_values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(n: u8) -> Lane {
        Lane([n; 16])
    }

    #[test]
    fn lanes_are_taken_in_turn() {
        let mut queue = FairQueue::default();
        for n in 0..256 {
            queue.push(lane(1), ("many", n));
        }
        queue.push(lane(2), ("one", 0));
        queue.push(lane(3), ("other", 0));
        let first: Vec<_> = (0..5).filter_map(|_| queue.pop()).collect();
        assert_eq!(first, [("many", 0), ("one", 0), ("other", 0), ("many", 1), ("many", 2)]);
        assert_eq!(queue.len(), 253);
    }

    #[test]
    fn room_is_taken_from_who_has_the_most() {
        let mut queue = FairQueue::default();
        for n in 0..3 {
            queue.push(lane(1), n);
        }
        queue.push(lane(2), 7);
        assert_eq!(queue.take_from_longest(lane(1)), None, "not from the same lane");
        assert_eq!(queue.take_from_longest(lane(3)), Some(2));
        assert_eq!(queue.take_from_longest(lane(2)), None, "who has about as much waits like everybody");
        assert_eq!(queue.take_from_longest(lane(3)), Some(1));
        assert_eq!(queue.take_from_longest(lane(3)), None);
        assert_eq!((queue.len(), queue.pop(), queue.pop(), queue.pop()), (2, Some(0), Some(7), None));
    }

    #[test]
    fn several_are_taken_in_turn_and_what_is_passed_over_comes_first_the_next_time() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            queue.push(lane(1), 10 + n);
            queue.push(lane(2), 20 + n);
        }
        queue.push(lane(3), 30);
        let mut room = 5;
        let taken = queue.take_some(|n| match n {
            10 | 12 | 30 => Take::No,
            _ if room == 0 => Take::Stop,
            _ => {
                room -= 1;
                Take::Yes
            }
        });
        assert_eq!(taken, [11, 20, 13, 21, 22], "each in its lane's order");
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.take_some(|_| Take::Yes), [30, 10, 23, 12]);
        assert_eq!((queue.len(), queue.lanes.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_removed_or_put_back_keeps_the_turns_right() {
        let mut queue = FairQueue::default();
        queue.push(lane(1), 1);
        queue.push(lane(2), 2);
        queue.push(lane(1), 3);
        assert_eq!(queue.remove(lane(2), |item| *item == 2), Some(2));
        assert_eq!(queue.remove(lane(2), |item| *item == 2), None);
        assert!(queue.contains(lane(1), |item| *item == 3) && !queue.contains(lane(1), |item| *item == 2));
        queue.push_front(lane(2), 4);
        assert_eq!((queue.pop(), queue.pop(), queue.pop(), queue.pop()), (Some(4), Some(1), Some(3), None));
        assert_eq!((queue.len(), queue.lanes.len(), queue.turns.len()), (0, 0, 0));
        queue.push(lane(9), 5);
        assert_eq!(queue.drain().collect::<Vec<_>>(), [5]);
        assert_eq!(queue.len(), 0);
    }
}
