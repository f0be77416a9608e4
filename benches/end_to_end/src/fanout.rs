//! NATS: one publisher, many subscribers, in its text protocol.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    Failure,
    pipeline::Stream,
    process::cpu_time,
    spec::{Measured, Spec},
    tls,
};

/// What is published to.
const SUBJECT: &str = "s";

/// What publisher and subscribers share.
struct Board {
    missing: Cell<u64>,
    complete: Notify,
}

/// Connects, and waits until the server has understood `hello`.
async fn connect(spec: &Spec, hello: &str) -> Result<Box<dyn Stream>, Failure> {
    let mut stream = TcpStream::connect(spec.address()?).await?;
    stream.set_nodelay(true)?;
    // The server speaks first, in clear, one line.
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte).await?;
    }
    let mut stream: Box<dyn Stream> = if spec.client == "nats-tls" {
        let connector = tls::client(spec.folder.as_ref(), spec.aes)?;
        Box::new(connector.connect(tls::name(), stream).await?)
    } else {
        Box::new(stream)
    };
    let connect = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{hello}PING\r\n");
    stream.write_all(connect.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"PONG\r\n") {
        let read = stream.read_buf(&mut answer).await?;
        if read == 0 {
            return Err(format!("NATS hung up after {:?}", String::from_utf8_lossy(&answer)).into());
        }
    }
    Ok(stream)
}

pub(crate) async fn measure(spec: &Spec) -> Result<Measured, Failure> {
    let board = Rc::new(Board { missing: Cell::new(0), complete: Notify::new() });
    let message_len = format!("MSG {SUBJECT} 1 {}\r\n", spec.payload).len() + spec.payload + 2;
    for _ in 0..spec.connections {
        let stream = connect(spec, &format!("SUB {SUBJECT} 1\r\n")).await?;
        tokio::task::spawn_local(subscribe(stream, message_len, Rc::clone(&board)));
    }
    let mut publisher = connect(spec, "").await?;
    let payload = "x".repeat(spec.payload);
    let burst = format!("PUB {SUBJECT} {}\r\n{payload}\r\n", spec.payload).repeat(spec.in_flight);
    let deliveries = (spec.connections * spec.in_flight) as u64;
    let (mut rounds, mut busy) = (0, Duration::ZERO);
    let begin = Instant::now();
    let mut since: Option<[Duration; 2]> = None;
    let server = spec.server.ok_or("fan-out needs the server's process")?;
    let used =
        || -> Result<[Duration; 2], Failure> { Ok([cpu_time(std::process::id())?, cpu_time(server)?]) };
    while begin.elapsed() < spec.duration * 6 / 5 {
        if since.is_none() && begin.elapsed() >= spec.duration / 5 {
            since = Some(used()?);
        }
        board.missing.set(deliveries);
        let start = Instant::now();
        publisher.write_all(burst.as_bytes()).await?;
        publisher.flush().await?;
        tokio::time::timeout(Duration::from_secs(30), board.complete.notified()).await?;
        if since.is_some() {
            rounds += 1;
            busy += start.elapsed();
        }
    }
    let [own_before, server_before] = since.ok_or("the first burst took the whole time")?;
    let [own, server] = used()?;
    let done = (rounds * deliveries) as f64;
    Ok(Measured {
        per_s: done / busy.as_secs_f64(),
        cpu_us: (own + server - own_before - server_before).as_secs_f64() * 1e6 / done,
        server_cpu_us: (server - server_before).as_secs_f64() * 1e6 / done,
        ..Measured::none()
    })
}

/// Counts messages by their length: all of them have the same.
async fn subscribe(mut stream: Box<dyn Stream>, message_len: usize, board: Rc<Board>) -> Result<(), Failure> {
    let mut buffer = vec![0; 16 * 1024];
    let mut rest = 0;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err("NATS hung up".into());
        }
        // PING comes every two minutes, later than a measurement ends.
        rest += read;
        let arrived = (rest / message_len) as u64;
        rest %= message_len;
        let missing = board.missing.get();
        board.missing.set(missing.saturating_sub(arrived));
        if arrived > 0 && missing == arrived {
            board.complete.notify_one();
        }
    }
}
