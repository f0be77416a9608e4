//! Migrations of a user's own schema (floor 2): what two schemas differ in, the SQL that leads from one to the other, the lock
//! file, and what has to be applied. Text in, text out: no file and no database.
//!
//! A schema declares tables, their fields with types and permissions, and indexes. [`diff_schemas`] and [`Tables::diff`] say
//! what changed. Changes that lose nothing are safe and become a migration by themselves; the others come from a file that
//! somebody reviewed. The history is the list of all migrations, and the declared tables are what it adds up to: [`plan()`]
//! compares that with the schema file, with the files of migrations, and with what a database has.
//!
//! `store::migrations` runs what is planned here, `docs/migrations.md` says what it means for documents.

mod apply;
mod change;
mod diff;
mod error;
mod field_type;
mod lock;
mod names;
mod plan;
mod schema;
mod source;
mod sql;
mod toml_file;

pub use change::{Change, ChangeType};
pub use diff::{SchemaChange, SchemaDiff, diff_schemas};
pub use error::MigrationFault;
pub use field_type::{FieldType, Scalar};
pub use lock::{LOCK_FILE, Lock, Locked, LockedTable};
pub use names::{FIELD_NAME_LEN_MAX, INDEX_NAME_LEN_MAX};
pub use plan::{Applied, MigrationFile, Plan, Planned, plan};
pub use schema::{Field, Index, IndexKind, Perm, Schema, Table, Tables};
pub use source::{Migration, file_name, parse_file_name, skeleton};
pub use sql::generate_sql_add_field;
pub use toml_file::SCHEMA_FILE;
