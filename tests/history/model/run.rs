//! One sequence of steps, on a table of its own.

use std::collections::BTreeMap;

use raystream::store::feed::At;
use raystream::store::{DocumentId, Json, Order, Query, Store, StoreError, TableName, TopicName, Writer};

use super::daemons::Daemons;
use super::oracle::{Oracle, Rows};
use super::sessions::Session;
use super::{Daemon, Step};
use crate::server::eventually;

pub(super) const WRITER: Writer<'static> = Writer { principal: "tester" };

struct Mark {
    at: At,
    /// Counted in commits.
    commit: usize,
    rows: Rows,
    /// No transaction was running when it was taken, so that what was gone then is all that it lacks.
    is_quiet: bool,
}

pub(super) struct Run<'a> {
    pub(super) daemons: &'a mut Daemons,
    pub(super) table: TableName,
    quoted: String,
    pub(super) oracle: Oracle,
    pub(super) sessions: BTreeMap<usize, Session>,
    /// What dead sessions hold back until their leases end.
    pub(super) dead: Vec<(String, (u64, u64))>,
    marks: Vec<Mark>,
    /// What was committed by then is old.
    aged: usize,
}

fn name(id: u8) -> String {
    format!("d{id}")
}

pub(super) fn document(id: &str) -> DocumentId {
    DocumentId::parse(id).unwrap()
}

pub(super) fn all(at: Option<raystream::store::feed::Moment>) -> Query {
    Query { order: Order::Id { descending: false }, at, ..Query::default() }
}

/// The documents of a page, each as often as it is there.
pub(super) async fn documents(
    store: &Store,
    table: &TableName,
    query: Query,
) -> Result<Vec<(String, (i64, i64))>, StoreError> {
    let page = store.query(table, query).await?;
    let number = |json: &Json| serde_json::from_slice(json.as_bytes()).unwrap();
    Ok(page
        .items
        .iter()
        .map(|item| (item.id.as_str().to_owned(), (item.version, number(&item.data))))
        .collect())
}

pub(super) fn listed(rows: &Rows) -> Vec<(String, (i64, i64))> {
    rows.iter().map(|(id, row)| (id.clone(), *row)).collect()
}

impl<'a> Run<'a> {
    pub(super) async fn start(daemons: &'a mut Daemons, table: &str) -> Self {
        let table = TableName::parse(table).unwrap();
        daemons.clear(&table).await;
        let quoted = daemons.steady.table(&table).await.unwrap().quoted();
        Self {
            daemons,
            table,
            quoted,
            oracle: Oracle::default(),
            sessions: BTreeMap::new(),
            dead: Vec::new(),
            marks: Vec::new(),
            aged: 0,
        }
    }

    pub(super) async fn apply(&mut self, step: &Step) {
        match *step {
            Step::Begin { session, daemon, serializable, read_only } => {
                if !self.sessions.contains_key(&session) {
                    self.begin(session, daemon, serializable, read_only).await;
                    self.check_oldest().await;
                }
            }
            Step::Set(who, id, _) | Step::Delete(who, id) if self.is_held(who, &name(id)) => {}
            Step::Forget(id) if self.is_held(None, &name(id)) => {}
            Step::Set(None, id, n) => self.set(&name(id), n).await,
            Step::Delete(None, id) => self.delete(&name(id)).await,
            Step::Set(Some(session), id, n) => self.set_in(session, name(id), n).await,
            Step::Delete(Some(session), id) => self.delete_in(session, name(id)).await,
            Step::Read(session) => self.read_in(session).await,
            Step::End(session, commits) => {
                self.end_session(session, commits).await;
                self.check_oldest().await;
            }
            Step::Lapse(session) => {
                self.lapse(session).await;
                self.check_oldest().await;
            }
            Step::Kill => {
                self.kill().await;
                self.check_oldest().await;
            }
            Step::Age => self.age().await,
            Step::Forget(id) => {
                self.delete(&name(id)).await;
                self.age().await;
                self.collect().await;
            }
            Step::Collect => self.collect().await,
            Step::Mark => self.mark().await,
        }
    }

    /// Whether another session has the lock of a document, as far as is known.
    fn is_held(&self, who: Option<usize>, id: &str) -> bool {
        self.sessions.iter().any(|(other, session)| Some(*other) != who && session.view.written.contains(id))
    }

    async fn set(&mut self, id: &str, n: i64) {
        let version =
            self.daemons.steady.set(WRITER, &self.table, &document(id), Json::new(n.to_string()), None).await;
        let mut view = self.oracle.view();
        let version = version.unwrap();
        let good = self.oracle.next_versions(&view.rows, &view.last, id);
        assert!(good.contains(&version), "{id} gets version {version}, not one of {good:?}");
        view.set(id, version, n);
        self.oracle.commit(view);
    }

    async fn delete(&mut self, id: &str) {
        let deleted = self.daemons.steady.delete(WRITER, &self.table, &document(id)).await.unwrap();
        let mut view = self.oracle.view();
        assert_eq!(deleted, view.rows.contains_key(id), "{id} is deleted");
        view.delete(id);
        self.oracle.commit(view);
    }

    /// What open sessions hold back, and those of dead daemons until their leases end, is what the store says.
    async fn check_oldest(&self) {
        // The hasty one may have ended it at any moment.
        let maybe: Vec<_> =
            self.sessions.values().filter(|session| session.daemon == Daemon::Hasty).collect();
        let sure =
            self.sessions.values().filter(|session| session.daemon != Daemon::Hasty && session.is_leased);
        let sure = sure.map(|session| session.oldest).chain(self.dead.iter().map(|(_, oldest)| *oldest));
        let sure: Vec<(u64, u64)> = sure.collect();
        let most = sure.iter().map(|(_, most)| *most).min();
        let least =
            sure.iter().map(|(least, _)| *least).chain(maybe.iter().map(|session| session.oldest.0)).min();
        eventually("the oldest transaction is the one that it is", async || {
            match (self.daemons.steady.min_active_txid().await.unwrap(), least) {
                (None, _) => most.is_none(),
                (Some(_), None) => false,
                (Some(txid), Some(least)) => txid >= least && most.is_none_or(|most| txid <= most),
            }
        })
        .await;
    }

    /// Collects. What sessions see, and what marks had, is as before, or said not to be kept.
    async fn collect(&mut self) {
        let numbers: Vec<usize> = self.sessions.keys().copied().collect();
        for number in &numbers {
            self.read_in(*number).await;
        }
        self.daemons.collect().await;
        if self.aged > self.oracle.collected {
            self.oracle.collected = self.aged;
            self.oracle.collected_at = self.oracle.now;
        }
        for number in &numbers {
            self.read_in(*number).await;
        }
        assert_eq!(
            documents(&self.daemons.steady, &self.table, all(None)).await.unwrap(),
            listed(&self.oracle.rows)
        );
        self.check_marks().await;
        self.check_oldest().await;
    }

    async fn age(&mut self) {
        self.daemons.age().await;
        self.aged = self.oracle.now;
    }

    async fn mark(&mut self) {
        let (_, before) = self.daemons.running().await;
        let topic = TopicName::parse("marks").unwrap();
        let published = self.daemons.steady.publish(WRITER, &topic, Json::new("1")).await.unwrap();
        // Postgres may begin something of its own at any time: it looks after its tables.
        let (_, after) = self.daemons.running().await;
        self.oracle.now += 1;
        self.marks.push(Mark {
            at: At::Cursor(published.cursor.unwrap().to_string()),
            commit: self.oracle.now,
            rows: self.oracle.rows.clone(),
            is_quiet: before == 0 && after == 0,
        });
    }

    async fn check_marks(&self) {
        for mark in &self.marks {
            let store = &self.daemons.steady;
            let found = match store.moment(&mark.at).await {
                Ok(moment) => documents(store, &self.table, all(Some(moment))).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => {
                    assert_eq!(found, listed(&mark.rows), "what was there at commit {}", mark.commit);
                    assert!(mark.commit >= self.oracle.collected, "what it lacks is no longer known");
                }
                Err(StoreError::Reset(_)) => {
                    let is_kept = mark.is_quiet && mark.commit >= self.oracle.collected;
                    assert!(!is_kept, "all that commit {} lacks is in the log", mark.commit);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// Ends what is open. What is deleted then leaves nothing behind, nor do sessions.
    pub(super) async fn end(mut self) {
        self.check_marks().await;
        for number in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.read_in(number).await;
            self.end_session(number, number % 2 == 0).await;
        }
        for (sid, _) in std::mem::take(&mut self.dead) {
            self.daemons.end_lease(&sid).await;
        }
        self.age().await;
        self.collect().await;
        eventually("no tombstone is left", async || {
            let is_gone = self.daemons.due().await == 0 && self.daemons.tombstones(&self.quoted).await == 0;
            if !is_gone {
                self.daemons.collect().await;
            }
            is_gone
        })
        .await;
    }
}
