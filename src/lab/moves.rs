//! Hosts and routers that get other addresses while they run.

use super::{Families, HostId, Lab, Link, NetworkId, RouterId};
use crate::peer::api::SideEffectAnswer;

impl Lab {
    /// A host leaves a network and comes into another one (or the same) by that interface, with a new address. What is under way to
    /// the old one is lost. The engine is told of the addresses. Sockets stay; those that were bound to the old address get nowhere.
    pub fn move_host(&mut self, host: HostId, interface: usize, network: NetworkId, link: Link, families: Families) {
        self.internet.detach_host(self.hosts[host.0].interfaces[interface].0);
        self.hosts[host.0].interfaces[interface] = self.internet.attach_host(host, network, link, families);
        self.tell_addresses(host);
    }

    /// A host loses an interface for good. The engine is told of the addresses that are left.
    pub fn remove_interface(&mut self, host: HostId, interface: usize) {
        let (attachment, _) = self.hosts[host.0].interfaces.remove(interface);
        self.internet.detach_host(attachment);
        self.tell_addresses(host);
    }

    /// A router gets other outside addresses, as providers do it at night: every mapping ends. Nobody is told.
    pub fn renumber_router(&mut self, router: RouterId) {
        self.internet.renumber_router(self.time, router);
    }

    /// What the system tells a program that watches its interfaces.
    pub(super) fn tell_addresses(&mut self, host: HostId) {
        if self.is_running(host) {
            let addresses = SideEffectAnswer::LocalAddresses(self.addresses(host));
            self.answer_after(host, std::time::Duration::ZERO, addresses);
        }
    }
}
