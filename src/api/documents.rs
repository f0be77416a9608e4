//! The methods on documents, and the one on topics, as a set: their names, the rights they need, and running one by its name.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;

use super::caller::Context;
use super::{exec, search, tables, topics};
use crate::auth::TableRight;
use crate::rpc::{Call, Status};
use crate::store::{Lane, Scope, Store};

/// A method that a batch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Set,
    Update,
    Delete,
    Push,
    Pop,
    Shift,
    Query,
    Search,
    Count,
    Exec,
    Ptr,
    Create,
    List,
    Publish,
}

impl Method {
    /// The method with a name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "table.get" => Self::Get,
            "table.set" => Self::Set,
            "table.update" => Self::Update,
            "table.delete" => Self::Delete,
            "table.push" => Self::Push,
            "table.pop" => Self::Pop,
            "table.shift" => Self::Shift,
            "table.query" => Self::Query,
            "table.search" => Self::Search,
            "table.count" => Self::Count,
            "table.exec" => Self::Exec,
            "table.ptr" => Self::Ptr,
            "table.create" => Self::Create,
            "table.list" => Self::List,
            topics::PUBLISH => Self::Publish,
            _ => return None,
        })
    }

    /// What the caller needs on the table that the arguments name.
    fn rights(self) -> &'static [TableRight] {
        match self {
            Self::Get | Self::Query | Self::Search | Self::Count | Self::Exec | Self::Ptr => {
                &[TableRight::Read]
            }
            Self::Set | Self::Update | Self::Delete | Self::Push | Self::Create => &[TableRight::Write],
            Self::Pop | Self::Shift => &[TableRight::Read, TableRight::Write],
            // An event is of no table.
            Self::List | Self::Publish => &[],
        }
    }

    /// Whether it changes anything.
    pub(super) fn writes(self) -> bool {
        self == Self::Publish || self.rights().contains(&TableRight::Write)
    }

    /// Judges the caller by the arguments as they stand, before anything is done: for calls that may be answered without
    /// running the method. The method itself judges again.
    pub(super) fn authorise(self, context: &Context, args: &str) -> Result<(), Status> {
        if self == Self::Publish {
            return topics::authorise(context, args);
        }
        let rights = self.rights();
        if rights.is_empty() {
            return Ok(());
        }
        let Table { table } = serde_json::from_str(args)
            .map_err(|_| Status::invalid("the field `table` has to be there, once, and a string"))?;
        for right in rights {
            context.caller.authorise_table(&*table, *right)?;
        }
        Ok(())
    }

    /// Runs it.
    pub(super) async fn run(self, store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
        match self {
            Self::Get => tables::get(store, context, call).await,
            Self::Set => tables::set(store, context, call).await,
            Self::Update => tables::update(store, context, call).await,
            Self::Delete => tables::delete(store, context, call).await,
            Self::Push => tables::push(store, context, call).await,
            Self::Pop => tables::pop(store, context, call).await,
            Self::Shift => tables::shift(store, context, call).await,
            Self::Query => tables::query(store, context, call).await,
            Self::Search => search::search(store, context, call).await,
            Self::Count => tables::count(store, context, call).await,
            Self::Exec => exec::exec(store, context, call).await,
            Self::Ptr => tables::ptr(store, context, call).await,
            Self::Create => tables::create(store, context, call).await,
            Self::List => tables::list(store, context, call).await,
            Self::Publish => topics::publish(store, context, call).await,
        }
    }
}

/// The one field that rights depend on.
#[derive(Deserialize)]
struct Table<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
}

/// The store for the operations of a call.
pub(super) fn scoped(store: &Store, context: &Context) -> Store {
    store.scoped(scope(context))
}

/// What the operations of a call run in: its connection's turn, until its deadline, unless it is cancelled.
pub(super) fn scope(context: &Context) -> Scope {
    let scope = Scope::of(Lane(context.connection.0)).cancelled_by(context.cancelled.clone());
    match context.deadline {
        Some(left) => scope.lasting(left),
        None => scope,
    }
}
