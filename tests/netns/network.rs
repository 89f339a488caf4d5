//! A small internet of network namespaces: a switch with public addresses, routers of several kinds, hosts behind them.
//!
//! Everything is made with `ip` and `nft` as root, under names that no other process uses, and removed when dropped. The
//! addresses look public, because that is what the tested code must see; no packet leaves the namespaces.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The public side: 45.60.0.0/16, one flat network. The server has .0.1 and .0.2, everybody else .1.1 and following.
const SERVER_ADDRESSES: [&str; 2] = ["45.60.0.1", "45.60.0.2"];
/// Every home has the same private network, as in life: an address of a stranger's home must not confuse anybody.
const HOME: &str = "192.168.1";
/// The carrier's own network between a home's router and the public side (RFC 6598).
const CARRIER: &str = "100.64.0";

/// What stands between a host and the public side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// Nothing: the host has a public address.
    Open,
    /// Whatever arrives from outside goes to the host.
    FullCone,
    /// What comes from an address that the host has sent to goes to the host.
    AddressRestricted,
    /// Only answers from the very address and port that the host has sent to come in: what Linux' masquerade does.
    PortRestricted,
    /// As port-restricted, and each destination gets a mapping of its own at a random port.
    Symmetric,
    /// Two port-restricted routers in a row: a home behind a carrier's router.
    Carrier,
    /// The same with a symmetric router at the carrier: the home's own router shows nothing of it.
    SymmetricCarrier,
    /// No translation: a public address, and a firewall at the host that lets in answers only.
    Firewall,
    /// A port-restricted router that passes no UDP, as in offices and hotels.
    UdpBlocked,
}

/// A host that lets in answers only.
const FIREWALL: &str = "table ip firewall {
    chain input { type filter hook input priority filter; policy drop;
        iifname \"lo\" accept
        ct state established,related accept
    }
}
";

/// The global IPv6 addresses begin so; the third group is a home's number, 0 the public side.
const IPV6: &str = "2a0b:6000:0";
const SERVER_IPV6: &str = "2a0b:6000:0::1";
/// What home routers do with IPv6: whatever goes out, and answers to it.
const IPV6_FIREWALL: &str = "table ip6 router {
    chain forward { type filter hook forward priority filter; policy drop;
        oifname \"wan\" accept
        ct state established,related accept
    }
}
";

impl Router {
    /// The carrier's router, if there is one.
    fn outer(self) -> Option<Router> {
        match self {
            Router::Carrier => Some(Router::PortRestricted),
            Router::SymmetricCarrier => Some(Router::Symmetric),
            _ => None,
        }
    }

    /// Those that keep a socket's outside address for all destinations.
    pub const ALL: [Router; 5] = [
        Router::Open,
        Router::FullCone,
        Router::AddressRestricted,
        Router::PortRestricted,
        Router::Carrier,
    ];
}

/// Namespaces of one test.
pub struct Network {
    prefix: String,
    namespaces: Vec<String>,
    next_public: u32,
    next_link: u32,
}

impl Network {
    /// Both addresses of the server's machine.
    pub const SERVER_ADDRESSES: [&'static str; 2] = SERVER_ADDRESSES;

    /// The switch and the server's namespace.
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("lanline-{}-{number}", std::process::id());
        let mut network = Network {
            prefix,
            namespaces: Vec::new(),
            next_public: 0,
            next_link: 0,
        };
        let switch = network.namespace("internet");
        run(&["ip", "-n", &switch, "link", "add", "switch", "type", "bridge"]);
        run(&["ip", "-n", &switch, "link", "set", "switch", "up"]);
        let server = network.namespace("server");
        network.plug(&server, "wan", &switch, "switch");
        for address in SERVER_ADDRESSES {
            let address = format!("{address}/16");
            run(&["ip", "-n", &server, "address", "add", &address, "dev", "wan"]);
        }
        network
    }

    pub fn server_namespace(&self) -> String {
        self.name("server")
    }

    pub fn server_address(&self) -> &'static str {
        SERVER_ADDRESSES[0]
    }

    /// The router of those hosts.
    pub fn router_namespace(&self, label: &str) -> String {
        self.name(&format!("{label}-router"))
    }

    /// The address of the n-th that was connected to the public side, from 1.
    pub fn public_address(&self, number: u32) -> IpAddr {
        public_address(number).parse().expect("an address")
    }

    /// The address of whoever was connected to the public side last.
    pub fn newest_public_address(&self) -> IpAddr {
        self.public_address(self.next_public)
    }

    /// Hosts behind a router of their own (`Open`: each with a public address). Gives their namespaces.
    pub fn hosts(&mut self, label: &str, router: Router, count: u32) -> Vec<String> {
        if matches!(router, Router::Open | Router::Firewall) {
            return (0..count)
                .map(|number| self.open_host(&format!("{label}{number}"), router))
                .collect();
        }
        let edge = self.namespace(&format!("{label}-router"));
        if let Some(outer) = router.outer() {
            let carrier = self.namespace(&format!("{label}-carrier"));
            self.connect_to_internet(&carrier);
            self.lan(&carrier, CARRIER);
            self.plug(&edge, "wan", &carrier, "lan");
            address_and_route(&edge, "wan", &format!("{CARRIER}.2/24"), &format!("{CARRIER}.1"));
            rules(&carrier, outer, CARRIER);
            rules(&edge, Router::PortRestricted, HOME);
        } else {
            self.connect_to_internet(&edge);
            rules(&edge, router, HOME);
        }
        self.lan(&edge, HOME);
        (0..count)
            .map(|number| {
                let host = self.namespace(&format!("{label}{number}"));
                self.plug(&host, "eth", &edge, "lan");
                address_and_route(&host, "eth", &format!("{HOME}.{}/24", number + 2), &format!("{HOME}.1"));
                host
            })
            .collect()
    }

    fn open_host(&mut self, label: &str, router: Router) -> String {
        let host = self.namespace(label);
        self.connect_to_internet(&host);
        if router == Router::Firewall {
            run_in(&host, &["nft", "-f", "-"], FIREWALL);
        }
        host
    }

    /// Takes a host's cable out and plugs it into another home, where it gets that address.
    pub fn move_host(&mut self, host: &str, label: &str, number: u32) {
        let edge = self.router_namespace(label);
        run(&["ip", "-n", host, "link", "del", "eth"]);
        self.plug(host, "eth", &edge, "lan");
        address_and_route(host, "eth", &format!("{HOME}.{number}/24"), &format!("{HOME}.1"));
    }

    /// The rules of a home's router become those of another kind, and it forgets its connections: a restart with other settings.
    pub fn restart_router(&self, label: &str, router: Router) {
        let edge = self.router_namespace(label);
        run_in(&edge, &["nft", "delete", "table", "ip", "router"], "");
        rules(&edge, router, HOME);
        self.forget_connections(label);
    }

    /// The rules of a home's router become those of another kind from one packet to the next; what it translates it goes on translating.
    pub fn change_router(&self, label: &str, router: Router) {
        let script = format!("delete table ip router\n{}", script_of(router, HOME));
        run_in(&self.router_namespace(label), &["nft", "-f", "-"], &script);
    }

    /// The router's table of connections is emptied.
    pub fn forget_connections(&self, label: &str) {
        run_in(&self.router_namespace(label), &["conntrack", "-F"], "");
    }

    /// From now on that home's router drops whatever goes to that address or comes from it.
    pub fn cut(&self, label: &str, address: IpAddr) {
        let script = format!(
            "table ip cut {{
                chain forward {{ type filter hook forward priority filter - 5;
                    ip daddr {address} drop
                    ip saddr {address} drop
                }}
            }}\n"
        );
        run_in(&self.router_namespace(label), &["nft", "-f", "-"], &script);
    }

    /// The end of [`Network::cut`].
    pub fn mend(&self, label: &str) {
        run_in(
            &self.router_namespace(label),
            &["nft", "delete", "table", "ip", "cut"],
            "",
        );
    }

    /// From now on that host's own firewall refuses what it sends to that address, and says so.
    pub fn forbid(&self, host: &str, address: IpAddr) {
        let script = format!(
            "table ip forbid {{
                chain goes {{ type filter hook output priority filter; ip daddr {address} reject with icmp type admin-prohibited
                }}
            }}\n"
        );
        run_in(host, &["nft", "-f", "-"], &script);
    }

    /// The end of [`Network::forbid`].
    pub fn allow(&self, host: &str) {
        run_in(host, &["nft", "delete", "table", "ip", "forbid"], "");
    }

    /// From now on counts the packets that come into a namespace from these addresses, and go out of it to them.
    pub fn watch(&self, namespace: &str, addresses: &[IpAddr]) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let script = format!(
            "table ip watch {{
                counter seen {{ }}
                chain comes {{ type filter hook prerouting priority raw; ip saddr {{ {addresses} }} counter name seen
                }}
                chain goes {{ type filter hook postrouting priority srcnat + 5; ip daddr {{ {addresses} }} counter name seen
                }}
            }}\n"
        );
        run_in(namespace, &["nft", "-f", "-"], &script);
    }

    /// The packets that [`Network::watch`] has counted there.
    pub fn seen(&self, namespace: &str) -> u64 {
        let text = run_in(namespace, &["nft", "list", "counter", "ip", "watch", "seen"], "");
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words
            .nth(1)
            .and_then(|number| number.parse().ok())
            .expect("nft names the packets")
    }

    /// A host has IPv6 only from now on.
    pub fn remove_ipv4(&self, host: &str) {
        run(&["ip", "-n", host, "-4", "address", "flush", "dev", "eth"]);
    }

    /// The server's address of that family.
    pub const SERVER_IPV6: &'static str = SERVER_IPV6;

    /// The server's cable takes packets of at most so many bytes, and drops larger ones without a word.
    pub fn narrow_server(&self, mtu: u32) {
        let mtu = mtu.to_string();
        run(&["ip", "-n", &self.server_namespace(), "link", "set", "wan", "mtu", &mtu]);
    }

    /// A port of a home's router is forwarded to its first host by hand.
    pub fn forward_port(&self, label: &str, port: u16) {
        let script = format!(
            "table ip byhand {{
                chain inward {{ type nat hook prerouting priority dstnat - 5;
                    iifname \"wan\" udp dport {port} dnat to {HOME}.2
                }}
            }}\n"
        );
        run_in(&self.router_namespace(label), &["nft", "-f", "-"], &script);
    }

    /// The server and the hosts of those homes (one each) get IPv6, each home behind a firewall without translation.
    pub fn add_ipv6(&mut self, homes: &[(&str, &str)]) {
        let (internet, server) = (self.name("internet"), self.server_namespace());
        run_in(&internet, &["sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1"], "");
        ipv6_address(&internet, "switch", &format!("{IPV6}::ffff"));
        ipv6_address(&server, "wan", SERVER_IPV6);
        ipv6_route(&server, &format!("{IPV6}::ffff"));
        for (number, (label, host)) in (1..).zip(homes) {
            let edge = self.router_namespace(label);
            let (outside, inside) = (format!("{IPV6}::1:{number}"), format!("{IPV6}:{number}"));
            run_in(&edge, &["sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1"], "");
            ipv6_address(&edge, "wan", &outside);
            ipv6_route(&edge, &format!("{IPV6}::ffff"));
            ipv6_address(&edge, "lan", &format!("{inside}::1"));
            ipv6_address(host, "eth", &format!("{inside}::2"));
            ipv6_route(host, &format!("{inside}::1"));
            let home = format!("{inside}::/64");
            run(&["ip", "-n", &internet, "-6", "route", "add", &home, "via", &outside]);
            run_in(&edge, &["nft", "-f", "-"], IPV6_FIREWALL);
        }
    }

    fn name(&self, label: &str) -> String {
        format!("{}-{label}", self.prefix)
    }

    fn namespace(&mut self, label: &str) -> String {
        let name = self.name(label);
        run(&["ip", "netns", "add", &name]);
        self.namespaces.push(name.clone());
        // Addresses are usable at once: nobody searches for duplicates first, also not of link-local ones.
        run_in(&name, &["sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0"], "");
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        name
    }

    /// A cable from `namespace` (as `interface`) to the bridge of another one.
    fn plug(&mut self, namespace: &str, interface: &str, bridge_namespace: &str, bridge: &str) {
        self.next_link += 1;
        let port = format!("port{}", self.next_link);
        run(&[
            "ip",
            "link",
            "add",
            interface,
            "netns",
            namespace,
            "type",
            "veth",
            "peer",
            "name",
            &port,
            "netns",
            bridge_namespace,
        ]);
        run(&[
            "ip",
            "-n",
            bridge_namespace,
            "link",
            "set",
            &port,
            "master",
            bridge,
            "up",
        ]);
        run(&["ip", "-n", namespace, "link", "set", interface, "up"]);
    }

    fn connect_to_internet(&mut self, namespace: &str) {
        self.next_public += 1;
        let address = format!("{}/16", public_address(self.next_public));
        let switch = self.name("internet");
        self.plug(namespace, "wan", &switch, "switch");
        run(&["ip", "-n", namespace, "address", "add", &address, "dev", "wan"]);
    }

    /// The inside of a router.
    fn lan(&mut self, router: &str, network: &str) {
        run(&["ip", "-n", router, "link", "add", "lan", "type", "bridge"]);
        run(&[
            "ip",
            "-n",
            router,
            "address",
            "add",
            &format!("{network}.1/24"),
            "dev",
            "lan",
        ]);
        run(&["ip", "-n", router, "link", "set", "lan", "up"]);
        run(&[
            "ip",
            "netns",
            "exec",
            router,
            "sysctl",
            "-q",
            "-w",
            "net.ipv4.ip_forward=1",
        ]);
        // Where the kernel shows bridged packets to the routers' rules, it must not: hosts of one home talk past them.
        let past_the_rules = "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 >$f";
        run(&["ip", "netns", "exec", router, "sh", "-c", past_the_rules]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn ipv6_address(namespace: &str, interface: &str, address: &str) {
    let address = format!("{address}/64");
    // No search for duplicates: the address is usable at once.
    run(&[
        "ip", "-n", namespace, "address", "add", &address, "dev", interface, "nodad",
    ]);
}

fn ipv6_route(namespace: &str, gateway: &str) {
    run(&["ip", "-n", namespace, "-6", "route", "add", "default", "via", gateway]);
}

fn address_and_route(namespace: &str, interface: &str, address: &str, gateway: &str) {
    run(&["ip", "-n", namespace, "address", "add", address, "dev", interface]);
    run(&["ip", "-n", namespace, "route", "add", "default", "via", gateway]);
}

/// The router's behaviour, as nftables rules. Unasked UDP to the router itself is dropped: an entry for it in the connection
/// table would make the router choose another port for the inside's packets. The ports of the address-restricted kind are those
/// of the inside: translation keeps them while they are free.
fn rules(namespace: &str, router: Router, inside: &str) {
    run_in(namespace, &["nft", "-f", "-"], &script_of(router, inside));
}

fn script_of(router: Router, inside: &str) -> String {
    let to_host = format!("udp dport 1024-65535 dnat to {inside}.2");
    let inward = match router {
        Router::FullCone => format!("iifname \"wan\" {to_host}"),
        Router::AddressRestricted => format!("iifname \"wan\" udp dport . ip saddr @contacted {to_host}"),
        _ => String::new(),
    };
    let blocked = if router == Router::UdpBlocked {
        "meta l4proto udp drop"
    } else {
        ""
    };
    let ports = if router == Router::Symmetric {
        "fully-random"
    } else {
        ""
    };
    format!(
        "table ip router {{
            set contacted {{ type inet_service . ipv4_addr; flags dynamic,timeout; timeout 60s; size 4096; }}
            chain inward {{ type nat hook prerouting priority dstnat; {inward}
            }}
            chain outward {{ type nat hook postrouting priority srcnat; oifname \"wan\" masquerade {ports}
            }}
            chain forward {{ type filter hook forward priority filter; policy drop;
                {blocked}
                oifname \"wan\" meta l4proto udp update @contacted {{ udp sport . ip daddr }}
                oifname \"wan\" accept
                ct state established,related accept
                ct status dnat accept
            }}
            chain input {{ type filter hook input priority filter; policy accept;
                iifname \"wan\" meta l4proto udp drop
            }}
        }}\n"
    )
}

fn public_address(number: u32) -> String {
    format!("45.60.1.{number}")
}

/// Runs a command in a namespace with that input, and gives its output.
pub fn run_in(namespace: &str, command: &[&str], input: &str) -> String {
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ip can be started");
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(input.as_bytes())
        .expect("the command reads its input");
    let output = child.wait_with_output().expect("the command ends");
    assert!(
        output.status.success(),
        "`{}` failed in {namespace} with the input\n{input}",
        command.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .expect("the command can be started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{}` failed: {error}", command.join(" "));
}
