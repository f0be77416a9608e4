//! What a pattern can cost for a byte of a text, whatever the text is.
//!
//! By the length of its own text a pattern cannot be judged: `1[01]{500}[^01]` is short, and behind each byte any of its 500
//! places may be the one that it is at. What matches remembers which sets of places it has seen, in a cache; when a text leads
//! to ever more of them, it goes through the places one by one. So a pattern weighs what its automaton has of them, unless it
//! can be at one place only.

use jsonschema_regex::to_rust_regex;
use regex_automata::dfa::onepass;
use regex_automata::nfa::thompson::{Config, NFA, WhichCaptures};

use super::PATTERN_SIZE_MAX;

/// Bytes of a pattern that count as one value: it is in each of its faults.
const PATTERN_BYTES: usize = 8;

/// What a state of the automaton counts for, in values that are looked at for one: where a cache of 256 KiB does not help,
/// it takes about as long as eight of them.
const STATE_WEIGHT: usize = 8;

/// What a pattern counts for that is at one place only.
const ONE_PLACE_WEIGHT: usize = 4;

/// The largest automaton that is made to find out whether a pattern is at one place only, in bytes.
const ONE_PLACE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// How many values a pattern counts as; `None` when it is not taken.
pub(super) fn weigh(pattern: &str) -> Option<u64> {
    // As the checker compiles it. That it keeps no groups makes it smaller, never larger.
    let translated = to_rust_regex(pattern).ok()?;
    let config = Config::new().which_captures(WhichCaptures::None).nfa_size_limit(Some(PATTERN_SIZE_MAX));
    let automaton = NFA::compiler().configure(config).build(&translated).ok()?;
    let steps = if is_at_one_place(&automaton) {
        ONE_PLACE_WEIGHT
    } else {
        automaton.states().len().saturating_mul(STATE_WEIGHT)
    };
    u64::try_from(steps.saturating_add(pattern.len() / PATTERN_BYTES)).ok()
}

/// Whether it begins at the beginning of a text, and each byte leaves one way to go on at most.
fn is_at_one_place(automaton: &NFA) -> bool {
    let config = onepass::Config::new().size_limit(Some(ONE_PLACE_SIZE_MAX));
    automaton.is_always_start_anchored()
        && onepass::Builder::new().configure(config).build_from_nfa(automaton.clone()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_weighs_what_its_automaton_has_of_places() {
        for one_place in
            ["^[a-z]{1,500}$", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "^[^@]+@[^@]+$", "^x"]
        {
            assert!(weigh(one_place).is_some_and(|weight| weight < 16), "{one_place}");
        }
        let many = weigh("1[01]{300}[^01]").expect("it is small");
        assert!(many > 300 * 8, "{many}");
        // Anchored, and it may be at many places all the same.
        let many = weigh("^[01]*1[01]{300}$").expect("it is small");
        assert!(many > 300 * 8, "{many}");
        let usual = weigh(r"^\S+@\S+\.\S+$").expect("it is small");
        assert!((20..2_400).contains(&usual), "{usual}");
        assert!(weigh("draft").is_some_and(|weight| weight < 100));
    }

    #[test]
    fn what_is_no_pattern_or_needs_backtracking_or_is_large_has_no_weight() {
        for pattern in ["(", "(?=a)b", r"(a)\1", "((a{100}){100}){100}", "[a-z]{5000}"] {
            assert_eq!(weigh(pattern), None, "{pattern}");
        }
    }
}
