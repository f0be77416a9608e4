//! Who wants to know of which tables, inside of a receiver's program.

use std::collections::BTreeMap;

use super::event::WebhookChangeEvent;

/// One subscription of a [`SubscriptionRegistry`]; its number is not given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u64);

type Emit = Box<dyn FnMut(&WebhookChangeEvent) + Send>;

struct Subscriber {
    name: String,
    tables: Vec<String>,
    emit: Emit,
}

/// Hands each event to those who subscribed to its table, in the order in which they did.
#[derive(Default)]
pub struct SubscriptionRegistry {
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    next: u64,
}

impl SubscriptionRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `emit` called with each event of some tables. `id` names the subscriber; with a name that is there already, the new one
    /// takes its place.
    pub fn subscribe(
        &mut self,
        id: &str,
        tables: &[&str],
        emit: impl FnMut(&WebhookChangeEvent) + Send + 'static,
    ) -> SubscriptionId {
        self.subscribers.retain(|_, subscriber| subscriber.name != id);
        let key = SubscriptionId(self.next);
        self.next += 1;
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        self.subscribers.insert(key, Subscriber { name: id.to_owned(), tables, emit: Box::new(emit) });
        key
    }

    /// Ends a subscription; says whether there was one.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> bool {
        self.subscribers.remove(&id).is_some()
    }

    /// Hands an event out; answers to how many.
    pub fn dispatch(&mut self, event: &WebhookChangeEvent) -> usize {
        let wants = |subscriber: &&mut Subscriber| subscriber.tables.contains(&event.table);
        self.subscribers.values_mut().filter(wants).map(|subscriber| (subscriber.emit)(event)).count()
    }

    /// How many subscribers there are, or of one table.
    pub fn subscriber_count(&self, table: Option<&str>) -> usize {
        let wants = |subscriber: &&Subscriber| {
            table.is_none_or(|table| subscriber.tables.iter().any(|wanted| wanted == table))
        };
        self.subscribers.values().filter(wants).count()
    }
}

impl std::fmt::Debug for SubscriptionRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriptionRegistry").field("subscribers", &self.subscribers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::parse_webhook_event;
    use super::*;

    #[test]
    fn an_event_goes_to_those_who_want_its_table() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let seen = Arc::clone(&seen);
            move |event: &WebhookChangeEvent| seen.lock().unwrap().push((name, event.table.clone()))
        };
        let event = |table: &str| {
            parse_webhook_event(format!(r#"{{"table":"{table}","operation":"INSERT","new":1}}"#).as_bytes())
                .unwrap()
        };
        let mut registry = SubscriptionRegistry::new();
        let first = registry.subscribe("a", &["t", "u"], note("first"));
        registry.subscribe("b", &["u"], note("second"));
        assert_eq!((registry.dispatch(&event("t")), registry.dispatch(&event("u"))), (1, 2));
        assert_eq!(registry.dispatch(&event("v")), 0);
        let counts = ["t", "u", "v"].map(|table| registry.subscriber_count(Some(table)));
        assert_eq!((counts, registry.subscriber_count(None)), ([1, 2, 0], 2));
        // One name is one subscriber.
        registry.subscribe("b", &["v"], note("third"));
        assert_eq!((registry.dispatch(&event("u")), registry.dispatch(&event("v"))), (1, 1));
        assert!(registry.unsubscribe(first) && !registry.unsubscribe(first));
        assert_eq!(registry.dispatch(&event("t")), 0);
        let seen: Vec<_> =
            seen.lock().unwrap().iter().map(|(name, table)| format!("{name} {table}")).collect();
        assert_eq!(seen, ["first t", "first u", "second u", "first u", "third v"]);
    }
}
