//! What attempts may cost: the budgets, held to what was counted from outside.

use super::{Cell, Technique};
use crate::lab::{AttemptProbes, HostProbes};

/// Most packets to one address that does not answer.
const PACKETS_TO_AN_ADDRESS: usize = 10;
/// Most addresses of a target that are named or learned.
const PLAIN_ADDRESSES: usize = 32;
/// Most addresses of a target that are foreseen.
const PREDICTED_ADDRESSES: usize = 64;
/// Most ports that a birthday prober tries.
const BIRTHDAY_PORTS: usize = 2_048;
/// Most of them in a second.
const BIRTHDAY_RATE: usize = 250;
/// Most sockets of a birthday opener.
const BIRTHDAY_SOCKETS: usize = 256;
/// The same behind what looks like a carrier's router.
const CARRIER_SOCKETS: usize = 64;
/// Most packets from each of them.
const PACKETS_OF_A_SOCKET: usize = 3;
/// Most requests of a node in a second.
const NODE_RATE: usize = 500;

impl Cell {
    /// What a host sent more of than it may.
    pub(super) fn over_budget(&self, host: &HostProbes) -> Option<String> {
        let mut limits = vec![("requests of a node in a second", host.busiest_second(), NODE_RATE)];
        for attempt in host.attempts() {
            limits.extend(self.limits(attempt));
        }
        let over = limits.into_iter().find(|(_, used, limit)| used > limit);
        over.map(|(what, used, limit)| format!("over the budget: {used} {what}, {limit} are allowed"))
    }

    /// What an attempt used of what it may. Only with a permit have sockets of the pool a budget of their own.
    fn limits(&self, attempt: &AttemptProbes) -> Vec<(&'static str, usize, usize)> {
        let permitted = matches!(self.technique, Technique::Birthday | Technique::BirthdayInBlock);
        let to_an_address = attempt.most_to_an_address(!permitted) as usize;
        let mut limits = vec![
            ("packets to an address", to_an_address, PACKETS_TO_AN_ADDRESS),
            ("addresses", attempt.plain_addresses(), PLAIN_ADDRESSES),
        ];
        if !permitted {
            let foreseen = attempt.searched_addresses(true);
            limits.push(("foreseen addresses", foreseen, PREDICTED_ADDRESSES));
            return limits;
        }
        let sockets = match self.technique {
            Technique::BirthdayInBlock => CARRIER_SOCKETS,
            _ => BIRTHDAY_SOCKETS,
        };
        let of_a_socket = attempt.most_from_a_pool_socket() as usize;
        limits.extend([
            ("searched ports", attempt.searched_addresses(false), BIRTHDAY_PORTS),
            (
                "searched ports in a second",
                attempt.busiest_second_of_search(false),
                BIRTHDAY_RATE,
            ),
            (
                "sockets",
                attempt.pool_sockets(),
                sockets.min(self.sockets.map_or(sockets, usize::from)),
            ),
            ("packets from a socket", of_a_socket, PACKETS_OF_A_SOCKET),
        ]);
        limits
    }
}
