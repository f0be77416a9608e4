//! The daemon as a process, from outside: documents, access, resume over kills, hostile input.
#![cfg(feature = "server")]

mod commands;
mod documents;
mod hostile;
mod limits;
mod resume;
mod secrets;
mod serve;
mod support;
mod websocket;
