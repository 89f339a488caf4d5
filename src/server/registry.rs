//! Who is registered: nodes by link, and by app and guid.
//!
//! In: nodes that have proven their key. Out: who they replace, who is found. Apps are worlds of their own: the same key
//! can be in two at once, and a lookup never crosses from one to the other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;

use crate::transport::LinkId;
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::control::{AddressProof, Consent, RelayPolicy, RelayRoundTrip};
use crate::wire::introduction::{Candidate, NatFacts};

/// A game's identifier, as a number. Never reused within the life of a [`Registry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppId(pub(super) u64);

/// What a node says of itself, and may change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Who it may be introduced to.
    pub consent: Consent,
    /// Its session tag; zeros: none.
    pub session_tag: [u8; 16],
    /// Its addresses, unchecked (`candidates` decides which are passed on).
    pub candidates: Box<[Candidate]>,
    /// What it knows of its NAT.
    pub facts: NatFacts,
    /// Addresses that it has proven, checked.
    pub proofs: Box<[AddressProof]>,
    /// When its packets may go through a relay.
    pub relay_policy: RelayPolicy,
}

/// A registered node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its proven key.
    pub key: PublicKey,
    /// The key's guid.
    pub guid: Guid,
    /// Its game.
    pub app: AppId,
    /// Its address as the server sees it.
    pub observed: SocketAddr,
    /// That is the address of a TCP stream, and no UDP packet to it arrives.
    pub tunnelled: bool,
    /// What it measured of the way to relays.
    pub round_trips: Box<[RelayRoundTrip]>,
    /// The rest.
    pub profile: Profile,
    app_name: Arc<str>,
}

impl Node {
    /// Whether the server saw the node at that IP address: in its session, or by a proof.
    pub fn is_seen_at(&self, ip: IpAddr) -> bool {
        let proven = self.profile.proofs.iter().map(|proof| proof.address);
        std::iter::once(self.observed)
            .chain(proven)
            .any(|address| address.ip().to_canonical() == ip.to_canonical())
    }
}

/// A node that wants to be registered.
#[derive(Debug)]
pub struct Applicant<'a> {
    /// Its proven key.
    pub key: PublicKey,
    /// Its game.
    pub app: &'a str,
    /// Its address as the server sees it.
    pub observed: SocketAddr,
    /// See [`Node::tunnelled`].
    pub tunnelled: bool,
    /// The rest.
    pub profile: Profile,
}

/// Why a node was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many nodes as allowed.
    Full,
    /// Another key with the same guid is there. Chance does not make that happen; the first stays.
    GuidTaken,
}

struct App {
    id: AppId,
    nodes: usize,
}

/// The registered nodes.
pub struct Registry {
    max_nodes: usize,
    next_app: u64,
    /// Each game's name is stored once, here; a game without nodes is forgotten.
    apps: BTreeMap<Arc<str>, App>,
    nodes: BTreeMap<LinkId, Node>,
    names: BTreeMap<(AppId, Guid), LinkId>,
}

impl Registry {
    /// An empty one for that many nodes.
    pub fn new(max_nodes: usize) -> Self {
        Self {
            max_nodes,
            next_app: 0,
            apps: BTreeMap::new(),
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// How many nodes are registered.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Registers. Returns the link of the same identity's older registration, which is registered no more.
    pub fn register(&mut self, link: LinkId, applicant: Applicant<'_>) -> Result<Option<LinkId>, Refusal> {
        let guid = applicant.key.guid();
        let older = self
            .apps
            .get(applicant.app)
            .and_then(|app| self.names.get(&(app.id, guid)).copied());
        match older.and_then(|older| self.nodes.get(&older)) {
            Some(node) if node.key != applicant.key => return Err(Refusal::GuidTaken),
            Some(_) => {}
            None if self.nodes.len() >= self.max_nodes => return Err(Refusal::Full),
            None => {}
        }
        if let Some(older) = older {
            self.remove(older);
        }
        let (app, app_name) = self.enter_app(applicant.app);
        self.names.insert((app, guid), link);
        let node = Node {
            key: applicant.key,
            guid,
            app,
            observed: applicant.observed,
            tunnelled: applicant.tunnelled,
            round_trips: Box::default(),
            profile: applicant.profile,
            app_name,
        };
        self.nodes.insert(link, node);
        Ok(older)
    }

    fn enter_app(&mut self, name: &str) -> (AppId, Arc<str>) {
        if let Some((shared, _)) = self.apps.get_key_value(name) {
            let shared = shared.clone();
            if let Some(app) = self.apps.get_mut(name) {
                app.nodes += 1;
                return (app.id, shared);
            }
        }
        let (id, shared) = (AppId(self.next_app), Arc::<str>::from(name));
        self.next_app += 1;
        self.apps.insert(shared.clone(), App { id, nodes: 1 });
        (id, shared)
    }

    /// The link's registration ends. `None`: it had none.
    pub fn remove(&mut self, link: LinkId) -> Option<Node> {
        let node = self.nodes.remove(&link)?;
        self.names.remove(&(node.app, node.guid));
        if let Some(app) = self.apps.get_mut(&node.app_name) {
            app.nodes -= 1;
            if app.nodes == 0 {
                self.apps.remove(&node.app_name);
            }
        }
        Some(node)
    }

    /// The node of a link.
    pub fn node(&self, link: LinkId) -> Option<&Node> {
        self.nodes.get(&link)
    }

    /// The node of a link, to change what may change.
    pub fn node_mut(&mut self, link: LinkId) -> Option<&mut Node> {
        self.nodes.get_mut(&link)
    }

    /// Up to so many links of nodes, in order, behind that one.
    pub fn links_after(&self, after: Option<LinkId>, most: usize) -> Vec<LinkId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let links = self.nodes.range((start, Bound::Unbounded));
        links.take(most).map(|(link, _)| *link).collect()
    }

    /// The node with that guid in that game.
    pub fn find(&self, app: AppId, guid: Guid) -> Option<(LinkId, &Node)> {
        let link = *self.names.get(&(app, guid))?;
        Some((link, self.nodes.get(&link)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant(key: u8, app: &str) -> Applicant<'_> {
        Applicant {
            key: PublicKey([key; 32]),
            app,
            observed: "203.0.113.1:4000".parse().unwrap(),
            tunnelled: false,
            profile: Profile::default(),
        }
    }

    #[test]
    fn the_newest_of_an_identity_wins() {
        let mut registry = Registry::new(10);
        assert_eq!(registry.register(LinkId(1), applicant(1, "game")), Ok(None));
        assert_eq!(registry.register(LinkId(2), applicant(1, "game")), Ok(Some(LinkId(1))));
        assert_eq!(registry.len(), 1);
        let app = registry.node(LinkId(2)).unwrap().app;
        assert_eq!(registry.find(app, PublicKey([1; 32]).guid()).unwrap().0, LinkId(2));
        // The older link ends later: that must not touch the newer registration.
        assert!(registry.remove(LinkId(1)).is_none());
        assert!(registry.find(app, PublicKey([1; 32]).guid()).is_some());
    }

    #[test]
    fn apps_are_worlds_of_their_own() {
        let mut registry = Registry::new(10);
        registry.register(LinkId(1), applicant(1, "one")).unwrap();
        assert_eq!(registry.register(LinkId(2), applicant(1, "two")), Ok(None));
        registry.register(LinkId(3), applicant(2, "two")).unwrap();
        let one = registry.node(LinkId(1)).unwrap().app;
        assert!(registry.find(one, PublicKey([2; 32]).guid()).is_none());
        assert_eq!(registry.find(one, PublicKey([1; 32]).guid()).unwrap().0, LinkId(1));
    }

    #[test]
    fn a_full_registry_still_lets_a_known_identity_come_back() {
        let mut registry = Registry::new(2);
        registry.register(LinkId(1), applicant(1, "game")).unwrap();
        registry.register(LinkId(2), applicant(2, "game")).unwrap();
        assert_eq!(registry.register(LinkId(3), applicant(3, "game")), Err(Refusal::Full));
        assert_eq!(registry.register(LinkId(4), applicant(1, "game")), Ok(Some(LinkId(1))));
        registry.remove(LinkId(2)).unwrap();
        assert_eq!(registry.register(LinkId(5), applicant(3, "game")), Ok(None));
    }

    #[test]
    fn a_game_without_nodes_is_forgotten() {
        let mut registry = Registry::new(1_000);
        for number in 0..100 {
            let app = format!("game {number}");
            registry.register(LinkId(number), applicant(1, &app)).unwrap();
        }
        assert_eq!(registry.apps.len(), 100);
        for number in 0..100 {
            registry.remove(LinkId(number)).unwrap();
        }
        assert!(registry.apps.is_empty() && registry.names.is_empty() && registry.len() == 0);
    }
}
