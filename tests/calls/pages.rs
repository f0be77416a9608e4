//! Pages of a query: each document once, whatever others write meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use raystream::client::{Client, Json, StreamOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Server, call, code};

/// Random numbers that can be repeated (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// A value to order by: of every type, many of them the same.
    fn key(&mut self) -> Value {
        match self.below(9) {
            0 => Value::Null,
            1 => json!(self.below(3)),
            2 => json!(-0.5 * f64::from(u32::try_from(self.below(4)).unwrap())),
            3 => json!(format!("{}", self.below(4))),
            4 => json!(["ä", "Z", "a", "é", ""][usize::try_from(self.below(5)).unwrap()]),
            5 => json!(self.below(2) == 0),
            6 => json!([self.below(2)]),
            7 => json!({"x": self.below(2)}),
            _ => json!(1.0),
        }
    }

    fn document(&mut self) -> Value {
        // Some have no such field at all.
        if self.below(6) == 0 { json!({"f": 1}) } else { json!({"f": 1, "k": self.key()}) }
    }
}

async fn ok(client: &Client, method: &str, args: Value) -> Value {
    call(client, method, args.clone()).await.unwrap_or_else(|error| panic!("{method} {args}: {error}"))
}

/// A page as items: the documents and where it goes on.
async fn streamed(client: &Client, args: &Value) -> (Vec<Value>, Value) {
    let args = Json::encode(args).unwrap();
    let mut stream = client.open("table.query", args, StreamOptions::receiving()).await.unwrap();
    let mut items = Vec::new();
    while let Some(item) = stream.next().await.unwrap() {
        items.push(item.decode().unwrap());
    }
    let end: Value = stream.result().await.unwrap().decode().unwrap();
    assert_eq!(end["count"], items.len());
    (items, end["next"].clone())
}

async fn page(client: &Client, args: &Value, is_streamed: bool) -> (Vec<Value>, Value) {
    if is_streamed {
        return streamed(client, args).await;
    }
    let page = ok(client, "table.query", args.clone()).await;
    (page["items"].as_array().unwrap().clone(), page["next"].clone())
}

fn id(item: &Value) -> String {
    item["id"].as_str().unwrap().to_owned()
}

/// What was done to documents while somebody paged.
#[derive(Default)]
struct Meanwhile {
    /// Gone, come, or moved in the order.
    moved: BTreeSet<String>,
    /// Their place in the order was changed while they were there.
    reordered: BTreeSet<String>,
}

/// Writes something, and remembers which documents that moves. What there is, is the oracle.
async fn disturb(
    random: &mut Random,
    clients: &[Client],
    table: &str,
    there: &mut BTreeMap<String, Value>,
    meanwhile: &mut Meanwhile,
) {
    let client = &clients[usize::try_from(random.below(2)).unwrap()];
    let place = usize::try_from(random.below(u64::try_from(there.len()).unwrap())).unwrap();
    let known = there.keys().nth(place).unwrap().clone();
    let write = |id: &str, data: &Value| json!({"table": table, "id": id, "data": data});
    match random.below(5) {
        0 => {
            let (id, data) = (format!("n{}", random.below(1_000_000)), random.document());
            ok(client, "table.set", write(&id, &data)).await;
            meanwhile.moved.insert(id.clone());
            there.insert(id, data);
        }
        1 if there.len() > 10 => {
            ok(client, "table.delete", json!({"table": table, "id": known})).await;
            there.remove(&known);
            meanwhile.moved.insert(known);
        }
        2 => {
            // Another value to order by; it may be the same one.
            let data = random.document();
            ok(client, "table.set", write(&known, &data)).await;
            there.insert(known.clone(), data);
            meanwhile.moved.insert(known.clone());
            meanwhile.reordered.insert(known);
        }
        3 => {
            // Gone and come again: it is another one, at the end of the insertion order.
            let data = there[&known].clone();
            ok(client, "table.delete", json!({"table": table, "id": known})).await;
            ok(client, "table.set", write(&known, &data)).await;
            meanwhile.moved.insert(known.clone());
            meanwhile.reordered.insert(known);
        }
        _ => {
            let patch = json!({"touched": random.below(1_000)});
            ok(client, "table.update", write(&known, &patch)).await;
            there.get_mut(&known).unwrap()["touched"] = patch["touched"].clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_document_is_on_one_page_whatever_is_written_meanwhile() {
    let server = Server::start().await;
    let other = server.another();
    let clients = [server.client(1).await, other.client(1).await];
    let (mut pages, mut disturbances) = (0, 0);
    for (seed, order) in ["", "k", "-k", "id", "-id", "k", "-k", ""].into_iter().enumerate() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (u64::try_from(seed).unwrap() << 32));
        let table = format!("pages{seed}");
        ok(&clients[0], "table.create", json!({"table": table})).await;
        let mut there = BTreeMap::new();
        for n in 0..60 {
            let (id, data) = (format!("d{:03}", random.below(1_000) * 60 + n), random.document());
            ok(&clients[0], "table.set", json!({"table": table, "id": id, "data": data})).await;
            there.insert(id, data);
        }
        let before: BTreeSet<String> = there.keys().cloned().collect();
        let mut args = json!({"table": table, "filter": {"f": 1}});
        if !order.is_empty() {
            args["order"] = json!(order);
        }
        let (mut seen, mut meanwhile) = (Vec::new(), Meanwhile::default());
        loop {
            // Any daemon goes on where another one ended, in either form, with any limit.
            args["limit"] = json!(1 + random.below(9));
            let is_streamed = random.below(2) == 0;
            let (items, next) =
                page(&clients[usize::try_from(random.below(2)).unwrap()], &args, is_streamed).await;
            seen.extend(items.iter().map(id));
            pages += 1;
            if next.is_null() {
                break;
            }
            args["after"] = next;
            for _ in 0..random.below(6) {
                disturb(&mut random, &clients, &table, &mut there, &mut meanwhile).await;
                disturbances += 1;
            }
        }
        let mut times: HashMap<&String, usize> = HashMap::new();
        seen.iter().for_each(|id| *times.entry(id).or_default() += 1);
        let stayed: Vec<&String> = before.iter().filter(|id| !meanwhile.moved.contains(*id)).collect();
        assert!(stayed.len() > 5, "seed {seed}: {} documents stayed", stayed.len());
        for id in &stayed {
            assert_eq!(times.get(id), Some(&1), "seed {seed}, order {order:?}: {id}");
        }
        for (id, times) in &times {
            assert!(
                *times == 1 || meanwhile.reordered.contains(*id),
                "seed {seed}, order {order:?}: {id} {times} times"
            );
        }
        // In the order of all of them at once.
        args["after"] = Value::Null;
        args["limit"] = json!(1_000);
        let (all, _) = streamed(&clients[1], &args).await;
        assert_eq!(all.len(), there.len());
        assert!(all.iter().all(|item| there[&id(item)] == item["data"]), "seed {seed}");
        let expected: Vec<String> = all.iter().map(id).filter(|id| stayed.contains(&id)).collect();
        let found: Vec<&String> = seen.iter().filter(|id| stayed.contains(id)).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "seed {seed}, order {order:?}");
    }
    assert!(pages > 60 && disturbances > 100, "{pages} pages, {disturbances} writes between them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_moment_are_all_of_that_moment() {
    let server = Server::start().await;
    let clients = [server.client(1).await, server.client(2).await];
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut there = BTreeMap::new();
    for n in 0..40 {
        let (id, data) = (format!("d{n:02}"), random.document());
        ok(&clients[0], "table.set", json!({"table": "t", "id": id, "data": data})).await;
        there.insert(id, data);
    }
    let moment = ok(&clients[0], "topic.publish", json!({"topic": "now", "data": 1})).await["cursor"].clone();
    let time = server
        .admin()
        .await
        .query_one(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
        'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
            &[],
        )
        .await
        .unwrap()
        .get::<_, String>(0);
    let then = there.clone();
    for (at, order) in [(moment.clone(), "k"), (json!(time), "-k"), (moment.clone(), "-id")] {
        let mut args = json!({"table": "t", "order": order, "at": at, "limit": 7});
        let (mut seen, mut n) = (Vec::new(), 0);
        loop {
            let (items, next) = page(&clients[0], &args, n % 2 == 0).await;
            seen.extend(items);
            if next.is_null() {
                break;
            }
            args["after"] = next;
            // The moment is that of the first page, whether it is named again or not.
            args["at"] = if n % 3 == 0 { Value::Null } else { at.clone() };
            n += 1;
            for _ in 0..5 {
                disturb(&mut random, &clients, "t", &mut there, &mut Meanwhile::default()).await;
            }
        }
        let seen: BTreeMap<String, Value> =
            seen.iter().map(|item| (id(item), item["data"].clone())).collect();
        assert_eq!(seen, then, "at {at}");
        assert!(n >= 5);
    }
    // A page of one moment is not gone on with as one of another.
    let first = ok(&clients[0], "table.query", json!({"table": "t", "limit": 3, "at": moment})).await;
    let live = ok(&clients[0], "table.query", json!({"table": "t", "limit": 3})).await;
    let later = ok(&clients[0], "topic.publish", json!({"topic": "now", "data": 2})).await["cursor"].clone();
    let go_on =
        |after: &Value, at: &Value| json!({"table": "t", "limit": 3, "after": after["next"], "at": at});
    for args in [go_on(&first, &later), go_on(&live, &moment)] {
        assert_eq!(code(call(&clients[0], "table.query", args).await), ErrorCode::INVALID_REQUEST);
    }
    let named = ok(&clients[0], "table.query", go_on(&first, &first["cursor"])).await;
    assert_eq!(named["cursor"], first["cursor"]);
    assert_eq!(named, ok(&clients[1], "table.query", go_on(&first, &Value::Null)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_was_changed_or_is_of_another_query_is_refused() {
    let mut server = Server::start().await;
    let client = server.client(1).await;
    ok(&client, "table.create", json!({"table": "u"})).await;
    for table in ["t", "u"] {
        for n in 0..9 {
            ok(&client, "table.set", json!({"table": table, "id": format!("{n}"), "data": {"k": n, "f": 1}}))
                .await;
        }
    }
    let query = json!({"table": "t", "order": "k", "filter": {"f": 1}, "limit": 4});
    let first = ok(&client, "table.query", query.clone()).await;
    let next = first["next"].as_str().unwrap();
    let with = |name: &str, value: Value| {
        let mut args = query.clone();
        args["after"] = json!(next);
        args[name] = value;
        args
    };
    let mut refused = vec![
        with("table", json!("u")),
        with("order", json!("-k")),
        with("order", json!("id")),
        with("filter", Value::Null),
        with("filter", json!({"f": 2})),
    ];
    for at in (0..next.len()).step_by(next.len() / 8) {
        let other = if &next[at..=at] == "A" { "B" } else { "A" };
        refused.push(with("after", json!(format!("{}{other}{}", &next[..at], &next[at + 1..]))));
        refused.push(with("after", json!(&next[..at])));
    }
    for args in refused {
        let answer = call(&client, "table.query", args.clone()).await.unwrap_err();
        assert_eq!(answer.code(), Some(ErrorCode::INVALID_REQUEST), "{args}");
        assert!(answer.to_string().contains("`after` is not the `next` of a page of this query"), "{answer}");
        let items =
            client.open("table.query", Json::encode(&args).unwrap(), StreamOptions::receiving()).await;
        let answer = items.unwrap().result().await.unwrap_err();
        assert_eq!(answer.code(), Some(ErrorCode::INVALID_REQUEST), "{args}");
    }
    // Spaces, the limit and a restart make no other query.
    server.kill();
    server.restart();
    let client = server.client(1).await;
    let (rest, end) = page(&client, &with("limit", json!(100)), true).await;
    assert_eq!(rest.iter().map(id).collect::<Vec<_>>(), ["4", "5", "6", "7", "8"]);
    assert_eq!(end, Value::Null);

    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_raystream"))
            .args(["query", &server.url, "t", "--order", "-k", "--limit", "5"])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (stdout, stderr) = run(&[]);
    assert_eq!(stdout.lines().count(), 5);
    let next = stderr.trim().strip_prefix("next: ").unwrap_or_else(|| panic!("{stderr}"));
    let (stdout, stderr) = run(&["--after", next]);
    assert_eq!((stdout.lines().count(), &*stderr), (4, ""));
    assert!(stdout.starts_with(r#"{"id":"3""#), "{stdout}");
}
