//! Ports that a router forwards, because its owner or a program asked for it.
//!
//! In: orders of programs (UPnP, PCP, NAT-PMP), the owner's settings, datagrams. Out: grants; who a datagram to a forwarded port is
//! for; the outside address of the answers to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::codes::MappingProtocol;

/// What a router does when it is asked by one of the protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum MappingService {
    /// It does not speak the protocol. Whoever asks is told so when the time that he gave is over.
    #[default]
    Absent,
    /// It forwards.
    Grants,
    /// It says no.
    Refuses,
    /// It says that it has no public address, and forwards nothing: what some do behind another router.
    NoPublicAddress,
    /// Its answers make no sense.
    Garbage,
    /// Not even the end of the time is told: what an engine must not wait for.
    Hangs,
}

/// How a router forwards ports for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMappingConfig {
    /// UPnP IGD. A port that somebody else has is a conflict; it has no epoch.
    pub upnp: MappingService,
    /// PCP. Gives the next free port; also opens holes in an IPv6 firewall.
    pub pcp: MappingService,
    /// NAT-PMP. Gives the next free port.
    pub nat_pmp: MappingService,
    /// Longest lifetime that is granted, in seconds.
    pub longest_lifetime: u32,
    /// Time until it answers.
    pub delay: Duration,
    /// The outside address that it tells; `None`: the true one.
    pub claims: Option<IpAddr>,
}

/// Longest lifetime unless told otherwise, in seconds: a week, as miniupnpd has it for UPnP.
const LONGEST_LIFETIME: u32 = 604_800;
/// Time until a router answers: it is a slow computer.
const ANSWER_DELAY: Duration = Duration::from_millis(20);

impl Default for PortMappingConfig {
    /// A router that speaks none of the protocols.
    fn default() -> Self {
        Self {
            upnp: MappingService::Absent,
            pcp: MappingService::Absent,
            nat_pmp: MappingService::Absent,
            longest_lifetime: LONGEST_LIFETIME,
            delay: ANSWER_DELAY,
            claims: None,
        }
    }
}

impl PortMappingConfig {
    /// A router that speaks only that protocol, and forwards.
    pub fn only(protocol: MappingProtocol) -> Self {
        Self::default().with(protocol, MappingService::Grants)
    }

    /// The same with another service for one protocol.
    pub fn with(mut self, protocol: MappingProtocol, service: MappingService) -> Self {
        match protocol {
            MappingProtocol::Upnp => self.upnp = service,
            MappingProtocol::Pcp => self.pcp = service,
            MappingProtocol::NatPmp => self.nat_pmp = service,
        }
        self
    }

    /// What happens to who asks by that protocol.
    pub fn service(&self, protocol: MappingProtocol) -> MappingService {
        match protocol {
            MappingProtocol::Upnp => self.upnp,
            MappingProtocol::Pcp => self.pcp,
            MappingProtocol::NatPmp => self.nat_pmp,
        }
    }
}

/// A port that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Where it really is.
    pub(crate) external: SocketAddr,
    /// Where the router says that it is.
    pub(crate) claimed: SocketAddr,
    /// Seconds; 0: for ever.
    pub(crate) lifetime: u32,
    /// Seconds since the router started, if the protocol tells.
    pub(crate) epoch: Option<u32>,
}

/// Why none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody else has that port.
    Conflict,
    /// All ports are taken.
    Full,
}

/// By which protocol, for whom, where, for how many seconds.
pub(super) type Order = (MappingProtocol, SocketAddr, SocketAddr, u32);

#[derive(Debug)]
struct Forward {
    internal: SocketAddr,
    ends: Option<Duration>,
    by_hand: bool,
}

impl Forward {
    fn alive(&self, now: Duration) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

/// All of a router.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    by_external: BTreeMap<SocketAddr, Forward>,
    /// Who was let in to whom (inside, remote), through which port, and when that was used last.
    flows: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, Duration)>,
    booted: Duration,
}

impl Forwards {
    pub(super) fn reboot(&mut self, now: Duration) {
        self.booted = now;
        self.flows.clear();
        self.by_external.retain(|_, forward| forward.by_hand);
    }

    /// Carries an order out. `translates`: the port may be another one than asked for. `in_use`: ports that others hold.
    pub(super) fn grant(
        &mut self,
        now: Duration,
        config: &PortMappingConfig,
        (protocol, internal, mut external, lifetime): Order,
        translates: bool,
        in_use: impl Fn(SocketAddr) -> bool,
    ) -> Result<Grant, Refusal> {
        let renewed = self
            .by_external
            .iter()
            .find(|(_, forward)| forward.internal == internal && forward.alive(now) && !forward.by_hand);
        if let Some((renewed, _)) = renewed {
            external = *renewed;
        } else if !translates {
            external = internal;
        } else {
            let taken =
                |external| self.holder(now, external).is_some_and(|holder| holder != internal) || in_use(external);
            if protocol == MappingProtocol::Upnp && taken(external) {
                return Err(Refusal::Conflict);
            }
            let mut ports = (external.port()..=u16::MAX).map(|port| SocketAddr::new(external.ip(), port));
            external = ports.find(|external| !taken(*external)).ok_or(Refusal::Full)?;
        }
        let lifetime = match (lifetime, protocol) {
            (0, MappingProtocol::Upnp) => 0,
            _ => lifetime.min(config.longest_lifetime),
        };
        let ends = (lifetime > 0).then(|| now + Duration::from_secs(lifetime.into()));
        let by_hand = false;
        self.by_external.insert(
            external,
            Forward {
                internal,
                ends,
                by_hand,
            },
        );
        Ok(Grant {
            external,
            claimed: external,
            lifetime,
            epoch: (protocol != MappingProtocol::Upnp).then(|| (now - self.booted).as_secs() as u32),
        })
    }

    pub(super) fn by_hand(&mut self, external: SocketAddr, internal: SocketAddr) {
        let (ends, by_hand) = (None, true);
        self.by_external.insert(
            external,
            Forward {
                internal,
                ends,
                by_hand,
            },
        );
    }

    pub(super) fn remove(&mut self, external: SocketAddr) {
        self.by_external.remove(&external);
    }

    /// The inside endpoint that has the port.
    pub(super) fn holder(&self, now: Duration, external: SocketAddr) -> Option<SocketAddr> {
        let forward = self.by_external.get(&external).filter(|forward| forward.alive(now));
        forward.map(|forward| forward.internal)
    }

    /// The port that an inside endpoint has.
    pub(super) fn external(&self, now: Duration, internal: SocketAddr) -> Option<SocketAddr> {
        let mut forwards = self.by_external.iter();
        let found = forwards.find(|(_, forward)| forward.internal == internal && forward.alive(now));
        found.map(|(external, _)| *external)
    }

    /// For whom a datagram from outside is.
    pub(super) fn inbound(&mut self, now: Duration, remote: SocketAddr, external: SocketAddr) -> Option<SocketAddr> {
        let internal = self.holder(now, external)?;
        self.flows.insert((internal, remote), (external, now));
        Some(internal)
    }

    /// The outside endpoint of an answer to what came through a forwarded port.
    pub(super) fn reply(
        &mut self,
        now: Duration,
        timeout: Duration,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        if self.flows.is_empty() {
            return None;
        }
        let (external, used) = self.flows.get_mut(&(internal, remote))?;
        let external = *external;
        if now >= *used + timeout
            || !self
                .by_external
                .get(&external)
                .is_some_and(|forward| forward.alive(now))
        {
            self.flows.remove(&(internal, remote));
            return None;
        }
        *used = now;
        Some(external)
    }
}
