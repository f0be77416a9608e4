//! The servers of the comparison: each reads, does what its protocol asks, and sends the payload back.

use std::{net::SocketAddr, path::Path};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{Failure, grpc, tls, websocket};

/// The first buffer of a connection; it grows when a read fills it.
const READ_MIN: usize = 512;
/// The largest.
const READ_MAX: usize = 128 * 1024;

/// `peer KIND FOLDER chacha|aes`: prints its address, then serves for ever.
pub(crate) async fn serve(arguments: &[String]) -> Result<(), Failure> {
    let [kind, folder, cipher] = arguments else { return Err("peer KIND FOLDER CIPHER".into()) };
    let (folder, aes) = (Path::new(folder), cipher == "aes");
    crate::process::allow_descriptors();
    let listener = listen()?;
    println!("{}", listener.local_addr()?);
    match kind.as_str() {
        "raw-tcp" => loop {
            let stream = accept(&listener).await?;
            tokio::spawn(echo(stream));
        },
        "raw-tls" => {
            let acceptor = tls::server(folder, aes)?;
            loop {
                let (stream, acceptor) = (accept(&listener).await?, acceptor.clone());
                tokio::spawn(async move { echo(acceptor.accept(stream).await?).await });
            }
        }
        "websocket" => {
            let acceptor = tls::server(folder, aes)?;
            loop {
                let (stream, acceptor) = (accept(&listener).await?, acceptor.clone());
                tokio::spawn(async move { websocket::serve(acceptor.accept(stream).await?).await });
            }
        }
        "grpc" => grpc::serve(listener, folder).await,
        other => Err(format!("there is no peer {other}").into()),
    }
}

fn listen() -> Result<TcpListener, Failure> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(socket.listen(4_096)?)
}

async fn accept(listener: &TcpListener) -> Result<TcpStream, Failure> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends back what comes, as it comes.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<(), Failure> {
    let mut buffer = vec![0; READ_MIN];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
        stream.flush().await?;
        if read == buffer.len() && read < READ_MAX {
            buffer.resize(2 * read, 0);
        }
    }
}
