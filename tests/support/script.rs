//! Applications for both ends that only react: a session between them is the same each time, and can be replayed from
//! its bytes.

use super::{call, event, response, rpc_error, subscribe, subscribed};
use raystream::{
    conn::{Connection, Event},
    wire::ErrorCode,
};
use std::num::NonZeroU32;

/// What one end does about each event.
pub trait Script: Default {
    fn on_event(&mut self, connection: &mut Connection, event: &Event);
}

/// Echoes calls; `fail` fails; a subscription gets as many items as there is credit, five at most, then ends when the
/// client wants.
#[derive(Default)]
pub struct ServerScript {
    items_sent: u64,
}

impl Script for ServerScript {
    fn on_event(&mut self, connection: &mut Connection, event: &Event) {
        // A call that cannot be answered any more belongs to a connection that is over.
        let _over = match event {
            Event::Call(stream, call) if call.method == "fail" => {
                connection.respond_error(*stream, &rpc_error(ErrorCode::NOT_FOUND, "there is no such method"))
            }
            Event::Call(stream, call) => connection.respond(*stream, &response(call.args.clone())),
            Event::Subscribe(stream, _) => {
                let _over = connection.send_subscribed(*stream, &subscribed("c0"));
                self.send_items(connection, *stream);
                Ok(())
            }
            Event::Credit(stream) => {
                self.send_items(connection, *stream);
                Ok(())
            }
            _ => Ok(()),
        };
    }
}

impl ServerScript {
    fn send_items(&mut self, connection: &mut Connection, stream: u32) {
        while self.items_sent < 5 && connection.subscription_credit(stream).is_some_and(|credit| credit > 0) {
            self.items_sent += 1;
            let n = self.items_sent;
            if connection.send_event(stream, &event(n, format!("{{\"n\":{n}}}"))).is_err() {
                return;
            }
        }
    }
}

/// Calls, fails, subscribes, gives credit, unsubscribes, and closes when all is answered.
#[derive(Default)]
pub struct ClientScript {
    answers: usize,
    items: usize,
}

impl Script for ClientScript {
    fn on_event(&mut self, connection: &mut Connection, event: &Event) {
        match event {
            Event::Connected(..) => {
                let _over = connection.call(&call("sys.echo", "{\"hello\":\"world\"}"));
                let _over = connection.call(&call("fail", "{}"));
                let _over = connection.subscribe(&subscribe("tasks", 3));
            }
            Event::Item(stream, _) => {
                self.items += 1;
                if self.items == 3 {
                    let _over = connection.credit(*stream, NonZeroU32::new(2).unwrap());
                }
                if self.items == 5 {
                    let _over = connection.unsubscribe(*stream);
                }
            }
            Event::Response(..) | Event::Error(..) => {
                self.answers += 1;
                if self.answers == 3 {
                    connection.close(ErrorCode::NO_ERROR, "done");
                }
            }
            _ => {}
        }
    }
}
