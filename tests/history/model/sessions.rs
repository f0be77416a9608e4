//! The sessions of a run: what each does, what it has to see, and how it ends.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use raystream::store::{
    InTransaction, Isolation, Json, OpenOptions, OpenTransaction, Over, Scope, Store, StoreError, Writes,
};

use super::Daemon;
use super::oracle::View;
use super::run::{Run, WRITER, all, document, documents, listed};
use crate::server::eventually;

/// A session that is not known to be over.
pub(super) struct Session {
    pub(super) daemon: Daemon,
    pub(super) serializable: bool,
    pub(super) read_only: bool,
    pub(super) open: OpenTransaction,
    pub(super) view: View,
    /// What it holds back counts from here on, at the least and at the most.
    pub(super) oldest: (u64, u64),
    pub(super) is_leased: bool,
}

/// What an operation of a session came to.
enum Done<T> {
    /// It gave this.
    Value(T),
    /// Others were in the way, and it was rolled back.
    Conflict,
    /// It was rolled back by itself before.
    Over,
}

impl Session {
    /// Runs something in the session. That it is over counts only where it may be.
    async fn run<T: Send + 'static>(
        &self,
        body: impl FnOnce(Store) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> Done<T> {
        let done = self.open.run(Scope::default(), false, body).await;
        match done {
            Ok(value) => Done::Value(value),
            Err(InTransaction::Broken(StoreError::Conflict)) => Done::Conflict,
            Err(InTransaction::Over(Over::Idle(_))) if self.daemon == Daemon::Hasty => Done::Over,
            Err(other) => panic!("{other:?}"),
        }
    }
}

impl Run<'_> {
    pub(super) async fn begin(&mut self, number: usize, daemon: Daemon, serializable: bool, read_only: bool) {
        let isolation = if serializable { Isolation::Serializable } else { Isolation::Snapshot };
        let writes = if read_only { Writes::Refused } else { Writes::Allowed };
        let (from, _) = self.daemons.running().await;
        let open = self.daemons.begin(daemon, OpenOptions { isolation, writes }).await;
        let (to, _) = self.daemons.running().await;
        let oldest = (from, open.txid().map_or(to, |txid| txid.min(to)));
        assert_eq!(open.txid().is_none(), read_only);
        let view = self.oracle.view();
        let session = Session { daemon, serializable, read_only, open, view, oldest, is_leased: true };
        self.sessions.insert(number, session);
        self.read_in(number).await;
    }

    pub(super) async fn set_in(&mut self, number: usize, id: String, n: i64) {
        let Some(session) = self.sessions.get_mut(&number).filter(|session| !session.read_only) else {
            return;
        };
        let (table, at) = (self.table.clone(), document(&id));
        let done = session.run(move |store| {
            async move { store.set(WRITER, &table, &at, Json::new(n.to_string()), None).await }.boxed()
        });
        let in_the_way = self.oracle.is_in_the_way(&session.view, &id);
        match done.await {
            Done::Value(version) => {
                assert!(!in_the_way, "{id} is written over what the session has not seen");
                let good = self.oracle.next_versions(&session.view.rows, &session.view.last, &id);
                assert!(good.contains(&version), "{id} gets version {version}, not one of {good:?}");
                session.view.set(&id, version, n);
            }
            Done::Conflict => {
                assert!(in_the_way || session.serializable, "nobody was in the way of {id}");
                self.over(number).await;
            }
            Done::Over => self.over(number).await,
        }
        self.read_in(number).await;
    }

    pub(super) async fn delete_in(&mut self, number: usize, id: String) {
        let Some(session) = self.sessions.get_mut(&number).filter(|session| !session.read_only) else {
            return;
        };
        let (table, at) = (self.table.clone(), document(&id));
        let done = session.run(move |store| async move { store.delete(WRITER, &table, &at).await }.boxed());
        let is_there = session.view.rows.contains_key(&id);
        let in_the_way = is_there && self.oracle.is_in_the_way(&session.view, &id);
        match done.await {
            Done::Value(deleted) => {
                assert!(!in_the_way, "{id} is deleted though the session has not seen it as it is");
                assert_eq!(deleted, is_there, "{id} is deleted");
                session.view.delete(&id);
            }
            Done::Conflict => {
                assert!(in_the_way || session.serializable, "nobody was in the way of {id}");
                self.over(number).await;
            }
            Done::Over => self.over(number).await,
        }
    }

    /// A session sees what it saw at its beginning, and what it wrote.
    pub(super) async fn read_in(&mut self, number: usize) {
        let Some(session) = self.sessions.get(&number) else { return };
        let table = self.table.clone();
        let done =
            session.run(move |store| async move { documents(&store, &table, all(None)).await }.boxed()).await;
        match done {
            Done::Value(found) => assert_eq!(found, listed(&session.view.rows), "what session {number} sees"),
            Done::Conflict => {
                assert!(session.serializable, "reading is in nobody's way");
                self.over(number).await;
            }
            Done::Over => self.over(number).await,
        }
    }

    /// A session that is over gives nothing, and left nothing behind.
    pub(super) async fn over(&mut self, number: usize) {
        let session = self.sessions.remove(&number).unwrap();
        let table = self.table.clone();
        let read = session.open.run(Scope::default(), false, move |store| {
            async move { documents(&store, &table, all(None)).await }.boxed()
        });
        assert!(matches!(read.await, Err(InTransaction::Over(_))), "what is over gives nothing");
        assert!(session.open.commit(Scope::default()).await.is_err(), "nor is it committed");
        self.daemons.ended(session.open.txid()).await;
    }

    pub(super) async fn end_session(&mut self, number: usize, commits: bool) {
        let Some(session) = self.sessions.get(&number) else { return };
        if !commits {
            session.open.roll_back().await;
            assert!(session.open.is_over());
            return self.over(number).await;
        }
        match session.open.commit(Scope::default()).await {
            Ok(()) => {
                let session = self.sessions.remove(&number).unwrap();
                self.oracle.commit(session.view);
            }
            Err(over) => {
                let may_be = match over {
                    Over::Failed(StoreError::Conflict) => session.serializable,
                    Over::Idle(_) => session.daemon == Daemon::Hasty,
                    _ => false,
                };
                assert!(may_be, "{over:?}");
                self.over(number).await;
            }
        }
    }

    pub(super) async fn lapse(&mut self, number: usize) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if session.daemon == Daemon::Hasty {
            eventually("it is over", async || session.open.is_over()).await;
            self.over(number).await;
        } else {
            self.daemons.end_lease(session.open.sid()).await;
            session.is_leased = false;
        }
        let (dead, daemons) = (std::mem::take(&mut self.dead), &self.daemons);
        for (sid, _) in dead {
            daemons.end_lease(&sid).await;
        }
    }

    pub(super) async fn kill(&mut self) {
        if !self.daemons.kill().await {
            return;
        }
        let dead: Vec<usize> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.daemon == Daemon::Mortal)
            .map(|(n, _)| *n)
            .collect();
        for number in dead {
            let session = &self.sessions[&number];
            if session.is_leased {
                self.dead.push((session.open.sid().to_owned(), session.oldest));
            }
            self.over(number).await;
        }
    }
}
