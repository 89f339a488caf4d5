//! Streams over loopback with real TLS: a node's end, a server's end, and strangers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Blocking};
use std::sync::Mutex;
use std::task::Context;

use tokio::net::TcpListener;

use super::*;
use crate::shell::server::tunnel::{MAX_HANDSHAKES, Tunnels as ServerTunnels};
use crate::transport::identity::Identity;
use crate::wire::tunnel::{MAX_TUNNEL_DATAGRAM, first_datagram};

fn crypto() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn identity() -> Identity {
    Identity::from_seed([5; 32])
}

/// Runs a test on a thread of its own kind: one runtime, nothing waits without end.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("it ends");
    });
}

fn serve() -> ServerTunnels {
    let tls = tunnel_tls::server(&identity(), &crypto()).unwrap();
    let ip = Ipv4Addr::LOCALHOST.into();
    ServerTunnels::open(&[ip], 0, &tls, false)
        .map_err(|(address, error)| (address, error.to_string()))
        .unwrap()
}

/// What a server's streams bring next: datagrams, and numbers of those that ended.
async fn next(server: &mut ServerTunnels) -> (Vec<Datagram>, Vec<u32>) {
    poll_fn(|context: &mut Context<'_>| server.poll_ready(context)).await;
    (server.receive().collect(), server.take_ended())
}

/// A client's end, carried by the test.
struct Client {
    queue: Arc<Queue>,
    arrived: mpsc::Receiver<Arrived>,
    end: tokio::task::JoinHandle<Result<End, End>>,
}

impl Client {
    async fn connect(address: SocketAddr, key: Option<PublicKey>) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        Self::over(tcp, address, key)
    }

    fn over(tcp: TcpStream, address: SocketAddr, key: Option<PublicKey>) -> Self {
        let queue = Arc::new(Queue::default());
        let (sender, arrived) = mpsc::channel(4);
        let owner = Owner {
            arrived: sender,
            wake: Arc::new(|| {}),
        };
        let shared = queue.clone();
        let end = tokio::spawn(async move {
            let client = tunnel_tls::client(&crypto(), key).unwrap();
            let name = ServerName::IpAddress(address.ip().into());
            let tls = rustls::ClientConnection::new(client.config.clone(), name).unwrap();
            let mut stream = Stream::new(0, address, tcp, tls, &shared, &owner);
            stream.handshake().await?;
            Ok(stream.run().await)
        });
        Self { queue, arrived, end }
    }
}

#[test]
fn datagrams_go_both_ways_and_keep_their_borders() {
    run(async {
        let mut server = serve();
        let mut client = Client::connect(server.addresses()[0], Some(identity().public())).await;
        let datagrams: Vec<Vec<u8>> = (1..=60).map(|number| vec![number as u8; 25 * number]).collect();
        for datagram in &datagrams {
            client.queue.send(datagram, None);
        }
        let (mut received, mut number) = (Vec::new(), None);
        while received.len() < datagrams.len() {
            for datagram in next(&mut server).await.0 {
                assert!(datagram.source.ip().is_loopback() && datagram.destination_ip.is_none());
                number = Some(datagram.socket);
                received.push(datagram.contents.to_vec());
            }
        }
        assert_eq!(received, datagrams);
        let Some(SocketName::Tunnel(number)) = number else {
            panic!("{number:?}")
        };
        server.send(number, &[7; 3_000], Some(1_400));
        for expected in [1_400, 1_400, 200] {
            let arrived = client.arrived.recv().await.unwrap();
            assert_eq!(arrived.contents[..], vec![7; expected][..]);
        }
        client.queue.close();
        assert!(matches!(client.end.await.unwrap(), Ok(End::Own)));
        let ended = loop {
            let (_, ended) = next(&mut server).await;
            if !ended.is_empty() {
                break ended;
            }
        };
        assert_eq!((ended, server.counters().open), (vec![number], 0));
    });
}

#[test]
fn a_server_with_another_key_gets_nothing() {
    run(async {
        let server = serve();
        let other = Identity::from_seed([6; 32]).public();
        let client = Client::connect(server.addresses()[0], Some(other)).await;
        client.queue.send(b"secret", None);
        assert!(matches!(client.end.await.unwrap(), Err(End::Tls(_))));
        while server.counters().failed == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.counters().opened, 0);
    });
}

#[test]
fn garbage_instead_of_tls_and_inside_of_tls_ends_a_stream() {
    run(async {
        let mut server = serve();
        let address = server.addresses()[0];
        let mut stranger = Blocking::connect(address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        while server.counters().failed == 0 {
            tokio::task::yield_now().await;
        }
        // A whole client, whose stream holds what is no frame.
        for garbage in [&[0_u8, 0, 1][..], &[0xff; 40]] {
            let tcp = TcpStream::connect(address).await.unwrap();
            let client = tunnel_tls::client(&crypto(), None).unwrap();
            let name = ServerName::IpAddress(address.ip().into());
            let mut tls = rustls::ClientConnection::new(client.config.clone(), name).unwrap();
            tls.writer().write_all(garbage).unwrap();
            let mut tcp = tcp.into_std().unwrap();
            tcp.set_nonblocking(true).unwrap();
            let ended = loop {
                while tls.wants_write() {
                    let _ = tls.write_tls(&mut tcp);
                }
                match tls.read_tls(&mut tcp) {
                    Ok(0) => {}
                    Ok(_) => {
                        let _ = tls.process_new_packets();
                    }
                    Err(_) => {}
                }
                let ready = tokio::time::timeout(Duration::from_millis(1), next(&mut server)).await;
                if let Ok((datagrams, ended)) = ready {
                    assert!(datagrams.is_empty());
                    if !ended.is_empty() {
                        break ended;
                    }
                }
            };
            assert_eq!(ended.len(), 1);
        }
        assert_eq!(server.counters().open, 0);
    });
}

#[test]
fn half_open_connections_are_bounded_and_keep_nobody_out() {
    run(async {
        let mut server = serve();
        let address = server.addresses()[0];
        let mut flood = Vec::new();
        for _ in 0..3 * MAX_HANDSHAKES / 2 {
            flood.push(TcpStream::connect(address).await.unwrap());
            let handshakes = server.counters().handshakes;
            assert!(handshakes <= MAX_HANDSHAKES as u64, "{handshakes}");
        }
        let client = Client::connect(address, None).await;
        client.queue.send(b"hello", None);
        let (datagrams, _) = next(&mut server).await;
        assert_eq!(datagrams[0].contents[..], b"hello"[..]);
        let counters = server.counters();
        assert!(counters.failed >= MAX_HANDSHAKES as u64 / 2, "{counters:?}");
        drop(flood);
    });
}

#[test]
fn a_stalled_reader_is_cut_off() {
    run(async {
        let mut server = serve();
        let address = server.addresses()[0];
        let tcp = Blocking::connect(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        let config = tunnel_tls::client(&crypto(), None).unwrap().config;
        let mut tls = rustls::ClientConnection::new(config, name).unwrap();
        let mut frame = Vec::new();
        crate::wire::tunnel::write_datagram(b"hello", &mut frame);
        tls.writer().write_all(&frame).unwrap();
        let mut socket = &tcp;
        let number = loop {
            while tls.wants_write() {
                let _ = tls.write_tls(&mut socket);
            }
            if tls.read_tls(&mut socket).is_ok() {
                tls.process_new_packets().unwrap();
            }
            let ready = tokio::time::timeout(Duration::from_millis(1), next(&mut server)).await;
            if let Ok((datagrams, _)) = ready
                && let Some(SocketName::Tunnel(number)) = datagrams.first().map(|datagram| datagram.socket)
            {
                break number;
            }
        };
        // From here on nothing is read at that end: the system's buffers fill, then the queue, whose oldest go.
        let ended = loop {
            for _ in 0..64 {
                server.send(number, &[1; MAX_TUNNEL_DATAGRAM], None);
            }
            let ready = tokio::time::timeout(Duration::from_millis(50), next(&mut server)).await;
            if let Ok((_, ended)) = ready
                && !ended.is_empty()
            {
                break ended;
            }
        };
        assert_eq!(ended, [number]);
        drop(tcp);
    });
}

#[test]
fn a_closed_server_gives_its_last_words_away() {
    run(async {
        let mut server = serve();
        let mut client = Client::connect(server.addresses()[0], None).await;
        client.queue.send(b"hello", None);
        let (datagrams, _) = next(&mut server).await;
        let SocketName::Tunnel(number) = datagrams[0].socket else {
            panic!("no stream")
        };
        server.send(number, b"goodbye", None);
        server.close().await;
        assert_eq!(client.arrived.recv().await.unwrap().contents[..], b"goodbye"[..]);
        assert!(matches!(client.end.await.unwrap(), Ok(End::Remote)));
    });
}

/// What a listening thing that is no Lanline server makes of a try.
#[test]
fn failures_have_words() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stranger = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tcp = tcp.into_std().unwrap();
            tcp.set_nonblocking(true).unwrap();
            let mut hello = [0; 2_000];
            while tcp.read(&mut hello).is_err() {
                tokio::task::yield_now().await;
            }
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            tcp
        });
        let tcp = TcpStream::connect(address).await.unwrap();
        let client = Client::over(tcp, address, None);
        let end = client.end.await.unwrap().unwrap_err();
        let SideEffectAnswer::TunnelFailed { code, text, .. } = handshake_failed(3, &end, None) else {
            panic!("{end:?}")
        };
        assert_eq!((code, text.as_str()), (Code::NoAnswer, "no Lanline server"));
        drop(stranger.await.unwrap());
        let key = identity().public();
        let answer = handshake_failed(3, &end, Some(key));
        assert!(matches!(
            answer,
            SideEffectAnswer::TunnelFailed {
                code: Code::WrongKey,
                ..
            }
        ));
        // Nobody listens there any more.
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(stream::tcp_words(&refused), "refused");
    });
}

/// Whole frames only, whatever a record holds.
#[test]
fn a_batch_is_whole_frames() {
    let queue = Queue::default();
    let heard = Mutex::new(0);
    for _ in 0..30 {
        queue.send(&[9; 1_200], None);
    }
    let mut batch = Vec::new();
    queue.take(&mut batch);
    let mut rest = &batch[..];
    while let Some(datagram) = first_datagram(rest).unwrap() {
        rest = &rest[datagram.len() + 2..];
        *heard.lock().unwrap() += 1;
    }
    assert_eq!((rest.len(), *heard.lock().unwrap()), (0, 13));
}
