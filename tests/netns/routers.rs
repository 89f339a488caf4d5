//! Are the routers what their names say? Plain UDP sockets ask them, without any of the project's code.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::network::{Network, Router};
use crate::players;

/// Set in the processes that this program starts of itself inside namespaces: the address to bind.
const BIND_VARIABLE: &str = "LANLINE_NETNS_SOCKET";
/// A packet crosses a few virtual cables; one that is not there after this time was dropped.
const ARRIVAL: Duration = Duration::from_millis(300);

/// A UDP socket in a namespace: this test program again, running [`serve_socket`] there.
struct Socket(Child);

impl Socket {
    fn bind(namespace: &str, address: &str) -> Self {
        let own = std::env::current_exe().expect("the path of this program");
        let child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(own)
            .args(["--exact", "routers::serve_socket", "--nocapture"])
            .env(BIND_VARIABLE, address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip can be started");
        let mut socket = Socket(child);
        assert_eq!(socket.answer(), "bound");
        socket
    }

    fn answer(&mut self) -> String {
        let output = self.0.stdout.as_mut().expect("stdout is piped");
        // Byte by byte: a buffered reader would have to live as long as the socket. The runner's own lines have no mark.
        loop {
            let mut line = String::new();
            while !line.ends_with('\n') {
                let mut byte = [0];
                std::io::Read::read_exact(output, &mut byte).expect("the socket's process answers");
                line.push(char::from(byte[0]));
            }
            if let Some((_, answer)) = line.trim_end().split_once("socket: ") {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        let input = self.0.stdin.as_mut().expect("stdin is piped");
        writeln!(input, "{command}")
            .and_then(|()| input.flush())
            .expect("the socket's process reads");
        self.answer()
    }

    fn send(&mut self, to: &str) {
        assert_eq!(self.ask(to), "sent");
    }

    /// Where the next packet came from; `None`: nothing came.
    fn receive(&mut self) -> Option<String> {
        Some(self.ask("receive")).filter(|source| source != "nothing")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other half of [`Socket`]: binds, then obeys lines (`receive`, or an address to send to). As a test of its own: nothing.
#[test]
fn serve_socket() {
    let Ok(bind) = std::env::var(BIND_VARIABLE) else { return };
    let socket = UdpSocket::bind(bind).expect("the address can be bound");
    socket.set_read_timeout(Some(ARRIVAL)).expect("a time-out can be set");
    println!("\nsocket: bound");
    for line in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
        if line == "receive" {
            let source = socket
                .recv_from(&mut [0; 64])
                .map_or("nothing".to_owned(), |(_, source)| source.to_string());
            println!("socket: {source}");
        } else {
            socket
                .send_to(b"probe", line.parse::<SocketAddr>().expect("an address"))
                .expect("it can be sent");
            println!("socket: sent");
        }
    }
}

/// What gets through to a host that has sent to one port of a server.
#[derive(Debug, PartialEq, Eq)]
struct Findings {
    /// Both of the server's ports see the same address: endpoint-independent mapping.
    same_mapping: bool,
    /// Packets from another port of the contacted address come in.
    other_port: bool,
    /// Packets from an address that was never contacted come in.
    stranger: bool,
    /// The mapping is still the same after an unasked packet.
    undisturbed: bool,
}

#[test]
fn routers_behave_as_they_are_named() {
    let Some(_turn) = crate::turn("routers_behave_as_they_are_named", players::obstacle()) else {
        return;
    };
    let mut network = Network::new();
    let server_ip = network.server_address();
    let stranger_namespace = network.hosts("stranger", Router::Open, 1).remove(0);
    let mut first = Socket::bind(&network.server_namespace(), &format!("{server_ip}:5001"));
    let mut second = Socket::bind(&network.server_namespace(), &format!("{server_ip}:5002"));
    let mut third = Socket::bind(&network.server_namespace(), &format!("{server_ip}:5003"));
    let mut stranger = Socket::bind(&stranger_namespace, "45.60.1.1:6000");
    for kind in Router::ALL
        .into_iter()
        .chain([Router::Symmetric, Router::SymmetricCarrier, Router::Firewall])
    {
        let namespace = network.hosts(&format!("{kind:?}").to_lowercase(), kind, 1).remove(0);
        let mut host = Socket::bind(&namespace, "0.0.0.0:40000");
        host.send(&format!("{server_ip}:5001"));
        let seen = first.receive().expect("the way out is open");
        first.send(&seen);
        assert_eq!(
            host.receive(),
            Some(format!("{server_ip}:5001")),
            "{kind:?}: answers come in"
        );
        third.send(&seen);
        let other_port = host.receive().is_some();
        stranger.send(&seen);
        let from_stranger = host.receive().is_some();
        host.send("45.60.1.1:6000");
        let undisturbed = stranger.receive().as_deref() == Some(&seen);
        host.send(&format!("{server_ip}:5002"));
        let same_mapping = second.receive().as_deref() == Some(&seen);
        let findings = Findings {
            same_mapping,
            other_port,
            stranger: from_stranger,
            undisturbed,
        };
        let symmetric = matches!(kind, Router::Symmetric | Router::SymmetricCarrier);
        let expected = Findings {
            same_mapping: !symmetric,
            other_port: matches!(kind, Router::Open | Router::FullCone | Router::AddressRestricted),
            stranger: matches!(kind, Router::Open | Router::FullCone),
            // A symmetric router shows the stranger another address in any case.
            undisturbed: !symmetric,
        };
        assert_eq!(findings, expected, "{kind:?}");
    }
}

#[test]
fn hosts_of_one_home_reach_each_other() {
    let Some(_turn) = crate::turn("hosts_of_one_home_reach_each_other", players::obstacle()) else {
        return;
    };
    let mut network = Network::new();
    let home = network.hosts("home", Router::PortRestricted, 2);
    let mut a = Socket::bind(&home[0], "0.0.0.0:40000");
    let mut b = Socket::bind(&home[1], "0.0.0.0:40000");
    a.send("192.168.1.3:40000");
    assert_eq!(b.receive().as_deref(), Some("192.168.1.2:40000"));
}
