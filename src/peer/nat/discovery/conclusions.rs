//! What the answers of a run come to.

use std::net::SocketAddr;

use super::super::super::api::Reason;
use super::super::allocation::{self, Sample};
use super::super::filtering::{Kind, Verdict};
use super::super::lifetime::Lifetime;
use super::{Discovery, Findings, Place, SAMPLES_FOR_ONE_ADDRESS, Tag};
use crate::codes::Code;
use crate::wire::control::AddressProof;
use crate::wire::introduction::NatFacts;

impl Discovery {
    pub(super) fn samples(&self) -> Vec<Sample> {
        let answers = self.fresh.iter().enumerate().filter_map(|(index, (_, bound, place))| {
            let answer = self.answer(Tag::Sample(index))?;
            Some(Sample {
                place: *place,
                ip: answer.mapped.ip(),
                outside: answer.mapped.port(),
                local: bound.port(),
                in_order: answer.repeat == 0,
            })
        });
        let mut samples: Vec<Sample> = answers.collect();
        // Without fresh sockets the node's own one is better than nothing.
        if samples.is_empty()
            && let Some(answer) = self.answer(Tag::Mapping(Place::Main))
        {
            samples.push(Sample {
                place: 0,
                ip: answer.mapped.ip(),
                outside: answer.mapped.port(),
                local: self.setup.own.port(),
                in_order: false,
            });
        }
        samples
    }

    /// The address that the server saw any socket of this run have.
    fn seen(&self) -> Option<SocketAddr> {
        let first = (0..self.fresh.len()).find_map(|index| self.answer(Tag::Sample(index)));
        let answer = first.or_else(|| self.answer(Tag::Mapping(Place::Main)))?;
        Some(answer.mapped)
    }

    pub(super) fn untranslated(&self) -> Option<bool> {
        let ip = self.seen()?.ip();
        let bound = self
            .fresh
            .iter()
            .map(|(_, bound, _)| bound.ip())
            .chain([self.setup.own.ip()]);
        Some(ip.is_loopback() || bound.chain(self.setup.local.iter().copied()).any(|own| own == ip))
    }

    /// Whether the mapping of one socket differs between the places of any of these pairs.
    fn varies(&self, pairs: [(Place, Place); 2]) -> Option<bool> {
        let own = |place| Some(self.answer(Tag::Own(place))?.mapped);
        let fresh = pairs.map(|(one, other)| Some(self.mapped_at(one)? != self.mapped_at(other)?));
        let own = pairs.map(|(one, other)| Some(own(one)? != own(other)?));
        fresh.into_iter().chain(own).flatten().reduce(|one, other| one | other)
    }

    /// Whether the filter stops what comes from there. Silence counts if packets from that very address reach another socket,
    /// which has sent to it.
    pub(super) fn filters(&self, kind: Kind) -> Option<bool> {
        let place = match (kind, self.other_port) {
            (Kind::Port, _) => Place::OtherPort,
            (Kind::Address, Some(_)) => Place::OtherBoth,
            (Kind::Address, None) => Place::OtherAddress,
        };
        match self.filtering.verdict(kind) {
            Verdict::Through => Some(false),
            Verdict::Silent => self.mapped_at(place).map(|_| true),
            Verdict::Open | Verdict::Unknown => None,
        }
    }

    fn hairpins(&self, varies: bool) -> Option<bool> {
        match self.hairpin.result()? {
            true => Some(true),
            // Where the mapping varies, the address that the server sees is not the one that others could use.
            false if varies => None,
            false => Some(false),
        }
    }

    /// What is known now.
    pub fn findings(&self) -> Findings {
        let varies_by_port = self.varies([(Place::Main, Place::OtherPort), (Place::OtherAddress, Place::OtherBoth)]);
        let varies_by_address = self.varies([(Place::Main, Place::OtherAddress), (Place::OtherPort, Place::OtherBoth)]);
        let samples = self.samples();
        let places = Place::OTHERS.into_iter();
        let further: Vec<u16> = places.filter_map(|place| Some(self.mapped_at(place)?.port())).collect();
        let untranslated = self.untranslated();
        let allocation = allocation::judge(&samples, &further);
        let varies = varies_by_port != Some(false) || varies_by_address == Some(true);
        let facts = NatFacts {
            mapping_varies_by_address: varies_by_address,
            mapping_varies_by_port: varies_by_port,
            filters_by_address: self.filters(Kind::Address),
            filters_by_port: self.filters(Kind::Port),
            preserves_port: allocation.preserves,
            port_step: allocation.step,
            port_block: allocation.block,
            hairpin: self.hairpins(varies),
        };
        let public = self.answer(Tag::Public).map(|answer| {
            let address = answer.mapped;
            (address, answer.cookie.map(|cookie| AddressProof { address, cookie }))
        });
        let several = samples.windows(2).any(|pair| pair[0].ip != pair[1].ip);
        Findings {
            facts,
            answered: self.round_trip.is_some(),
            public,
            seen: self.seen(),
            untranslated,
            several_addresses: match several {
                true => Some(true),
                false => (samples.len() >= SAMPLES_FOR_ONE_ADDRESS || untranslated == Some(true)).then_some(false),
            },
            samples: samples.iter().map(|sample| (sample.outside, sample.local)).collect(),
            lifetime: self.lifetime.as_ref().and_then(Lifetime::result),
            doors: self.known_doors(),
            v6_open: self.v6_open(),
            round_trip: self.round_trip,
            lack: self.lack(&facts),
        }
    }

    fn lack(&self, facts: &NatFacts) -> Option<Reason> {
        let (code, text) = if self.round_trip.is_none() {
            (Code::NoAnswer, "the server did not answer")
        } else if self.other_port.is_none() && self.other_ip.is_none() {
            (
                Code::Unsupported,
                "the server answers from one address and port only: what differs between destinations cannot be seen",
            )
        } else if self.fresh.is_empty() {
            (
                Code::Unsupported,
                "no further sockets could be opened: how packets are filtered and ports are given cannot be seen",
            )
        } else if facts.mapping_varies_by_port.is_none() && facts.mapping_varies_by_address.is_none() {
            (Code::NoAnswer, "the server did not answer at its other addresses")
        } else if facts.filters_by_port.is_none() && facts.filters_by_address.is_none() {
            (
                Code::NoAnswer,
                "the server did not answer from its other addresses, or too little of it arrived",
            )
        } else if self.setup.lifetime.is_some() && self.lifetime.as_ref().is_none_or(|test| test.result().is_none()) {
            (
                Code::Unsupported,
                "how long a mapping lives could not be found out: the server cannot answer at another port, or sockets are missing",
            )
        } else {
            return None;
        };
        Some(Reason {
            code,
            text: text.to_owned(),
        })
    }
}
