//! Values that no two documents may have.

use raystream::wire::ErrorCode;
use serde_json::json;

use crate::server::{call, code};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_a_value_that_is_taken_is_refused_and_does_nothing() {
    let world = World::start().await;
    world.set("a", json!({"user": {"email": "x@example.com"}})).await;
    world.set("b", json!({"user": {"email": "x@example.com"}})).await;
    let refused = world.index(&["create", "t", "user.email", "--unique"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("x@example.com"), "{refused:?}");
    assert!(world.in_catalogue().await.is_empty() && world.list().await.is_empty());

    world.set("b", json!({"user": {"email": "y@example.com"}})).await;
    world.create(&["user.email", "--unique"]).await;
    let taken = json!({"user": {"email": "x@example.com"}});
    for (method, args) in [
        ("table.set", json!({"table": "t", "id": "c", "data": taken})),
        ("table.set", json!({"table": "t", "id": "b", "data": taken})),
        ("table.set", json!({"table": "t", "id": "b", "data": taken, "if_version": 2})),
        ("table.update", json!({"table": "t", "id": "b", "data": taken})),
        ("table.push", json!({"table": "t", "data": taken})),
        (
            "table.batch",
            json!({"calls": [{"method": "table.set", "args": {"table": "t", "id": "z", "data": 1}},
                             {"method": "table.push", "args": {"table": "t", "data": taken}}]}),
        ),
    ] {
        let refused = world.call(method, args.clone()).await.expect_err("it is taken");
        assert_eq!(refused.code(), Some(ErrorCode::ALREADY_EXISTS), "{method} {args}: {refused}");
        assert!(refused.to_string().contains("unique"), "{refused}");
    }
    assert_eq!(world.call("table.count", json!({"table": "t"})).await.unwrap()["count"], 2);
    // None, and null, is no value.
    for (id, data) in [
        ("n", json!({})),
        ("m", json!(5)),
        ("o", json!({"user": {"email": null}})),
        ("p", json!({"user": {"email": null}})),
    ] {
        world.set(id, data).await;
    }
    // Who has it may write it again, and it is free when he is gone.
    world.set("a", json!({"user": {"email": "x@example.com", "n": 2}})).await;
    world.call("table.delete", json!({"table": "t", "id": "a"})).await.unwrap();
    world.set("c", taken.clone()).await;
    assert_eq!(
        code(world.call("table.set", json!({"table": "t", "id": "a", "data": taken})).await),
        ErrorCode::ALREADY_EXISTS
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_of_one_value_exactly_one_gets_it() {
    let world = World::start().await;
    world.create(&["name", "--unique"]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(world.server.client(1).await);
    }
    for round in 0..10 {
        // Writes of different callers share transactions; one that is refused takes none of the others with it.
        let writes = (0..16_usize).map(|n| {
            let (client, own) = (&clients[n % 4], format!("own-{round}-{n}"));
            async move {
                let data = json!({"name": if n % 2 == 0 { format!("one-{round}") } else { own.clone() }});
                call(client, "table.set", json!({"table": "t", "id": own, "data": data})).await
            }
        });
        let results = futures_util::future::join_all(writes).await;
        let (shared, own): (Vec<_>, Vec<_>) = results.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
        assert!(own.iter().all(|(_, result)| result.is_ok()), "{own:?}");
        let (got, refused): (Vec<_>, Vec<_>) = shared.into_iter().partition(|(_, result)| result.is_ok());
        assert_eq!(got.len(), 1);
        for (_, result) in refused {
            assert_eq!(code(result), ErrorCode::ALREADY_EXISTS);
        }
    }
    let count = json!({"table": "t"});
    assert_eq!(world.call("table.count", count).await.unwrap()["count"], 10 * 9);
}
