//! Which kinds of players reach this one, and how: the matrix of mapping and filtering behaviours.

use super::super::api::nat::NatReport;

/// A block of ports this narrow can be searched within a second; a wider one is as good as the full range. Carriers give their
/// customers blocks of 512 to 8,192 ports.
const NARROW_BLOCK: u16 = 16_384;

/// What a player sits behind, as far as punching is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Strangers get in.
    Open,
    /// One outside address for all; addresses that were sent to get in.
    AddressRestricted,
    /// One outside address for all; addresses with the port that was sent to get in.
    PortRestricted,
    /// An outside port for each destination, the local one if it is free.
    SymmetricPreserving,
    /// An outside port for each destination, one after the other.
    SymmetricSequential,
    /// An outside port for each destination, at random out of a narrow block.
    SymmetricBlock,
    /// An outside port for each destination, at random.
    SymmetricRandom,
}

impl Class {
    /// All of them, from open to strict.
    pub const ALL: [Class; 7] = [
        Class::Open,
        Class::AddressRestricted,
        Class::PortRestricted,
        Class::SymmetricPreserving,
        Class::SymmetricSequential,
        Class::SymmetricBlock,
        Class::SymmetricRandom,
    ];

    /// Its name in the JSON.
    pub fn label(self) -> &'static str {
        match self {
            Class::Open => "open",
            Class::AddressRestricted => "address_restricted",
            Class::PortRestricted => "port_restricted",
            Class::SymmetricPreserving => "symmetric_preserving",
            Class::SymmetricSequential => "symmetric_sequential",
            Class::SymmetricBlock => "symmetric_block",
            Class::SymmetricRandom => "symmetric_random",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Class::Open => "open, or with a forwarded port",
            Class::AddressRestricted => "relaxed (address restricted)",
            Class::PortRestricted => "moderate (port restricted)",
            Class::SymmetricPreserving => "strict, keeps port numbers",
            Class::SymmetricSequential => "strict, ports in sequence",
            Class::SymmetricBlock => "strict, random ports in a block",
            Class::SymmetricRandom => "strict, random ports",
        }
    }
}

/// How two players get together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One side lets everybody in.
    Direct,
    /// Both sides send at once.
    Punch,
    /// The outside port is most likely the local one.
    Guess,
    /// The next port is predicted from the last ones.
    Predict,
    /// Many ports of a block are tried.
    BirthdayInBlock,
    /// Many ports are tried from many sockets.
    Birthday,
    /// Mostly not.
    Poor,
    /// Not directly.
    Relay,
}

impl Way {
    /// Its name in the JSON.
    pub fn label(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Punch => "punch",
            Way::Guess => "guess",
            Way::Predict => "predict",
            Way::BirthdayInBlock => "birthday_in_block",
            Way::Birthday => "birthday",
            Way::Poor => "poor",
            Way::Relay => "relay",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Way::Direct => "directly",
            Way::Punch => "directly, by punching",
            Way::Guess => "directly, by guessing the port",
            Way::Predict => "mostly, by predicting the port",
            Way::BirthdayInBlock => "directly, by trying ports: about 1 s",
            Way::Birthday => "mostly, by trying ports: up to 10 s",
            Way::Poor => "seldom; else only over a relay",
            Way::Relay => "only over a relay",
        }
    }
}

/// How players behind those two get together.
pub fn way(one: Class, other: Class) -> Way {
    use Class::*;
    let (open, strict) = if one <= other { (one, other) } else { (other, one) };
    match (open, strict) {
        (Open, _) => Way::Direct,
        (AddressRestricted, _) | (PortRestricted, PortRestricted) => Way::Punch,
        (_, SymmetricPreserving) => Way::Guess,
        (_, SymmetricSequential) => Way::Predict,
        (PortRestricted | SymmetricPreserving, SymmetricBlock) => Way::BirthdayInBlock,
        (PortRestricted | SymmetricPreserving, _) => Way::Birthday,
        (SymmetricSequential, SymmetricBlock) => Way::Poor,
        _ => Way::Relay,
    }
}

/// The most restrictive class that the facts allow; `None` if too little is known.
pub fn class(report: &NatReport) -> Option<Class> {
    let facts = &report.facts;
    if facts.mapping_varies_by_address == Some(true) || facts.mapping_varies_by_port == Some(true) {
        return Some(match (facts.preserves_port, facts.port_step, facts.port_block) {
            (Some(true), _, _) => Class::SymmetricPreserving,
            (_, Some(_), _) => Class::SymmetricSequential,
            (_, _, Some((first, last))) if last.saturating_sub(first) < NARROW_BLOCK => Class::SymmetricBlock,
            _ => Class::SymmetricRandom,
        });
    }
    match (facts.filters_by_address, facts.filters_by_port) {
        (_, Some(true)) | (Some(true), None) => Some(Class::PortRestricted),
        (Some(true) | None, Some(false)) => Some(Class::AddressRestricted),
        (Some(false), _) => Some(Class::Open),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::introduction::NatFacts;

    #[test]
    fn the_matrix_is_the_known_one() {
        use Way::*;
        let expected = [
            vec![Direct, Direct, Direct, Direct, Direct, Direct, Direct],
            vec![Punch, Punch, Punch, Punch, Punch, Punch],
            vec![Punch, Guess, Predict, BirthdayInBlock, Birthday],
            vec![Guess, Predict, BirthdayInBlock, Birthday],
            vec![Predict, Poor, Relay],
            vec![Relay, Relay],
            vec![Relay],
        ];
        for (row, ways) in expected.iter().enumerate() {
            for (column, expected) in ways.iter().enumerate() {
                let (one, other) = (Class::ALL[row], Class::ALL[row + column]);
                assert_eq!(way(one, other), *expected, "{one:?} × {other:?}");
                assert_eq!(way(other, one), *expected, "{other:?} × {one:?}");
            }
        }
    }

    fn class_of(change: impl FnOnce(&mut NatFacts)) -> Option<Class> {
        let mut report = NatReport::default();
        change(&mut report.facts);
        class(&report)
    }

    #[test]
    fn the_class_is_the_most_restrictive_one_that_the_facts_allow() {
        assert_eq!(class_of(|_| {}), None);
        assert_eq!(
            class_of(|facts| facts.filters_by_port = Some(false)),
            Some(Class::AddressRestricted)
        );
        assert_eq!(
            class_of(|facts| facts.filters_by_address = Some(true)),
            Some(Class::PortRestricted)
        );
        assert_eq!(
            class_of(|facts| facts.filters_by_address = Some(false)),
            Some(Class::Open)
        );
        assert_eq!(
            class_of(|facts| facts.mapping_varies_by_port = Some(true)),
            Some(Class::SymmetricRandom)
        );
        let block = |first, last| {
            class_of(|facts| (facts.mapping_varies_by_port, facts.port_block) = (Some(true), Some((first, last))))
        };
        assert_eq!(block(40_000, 42_047), Some(Class::SymmetricBlock));
        assert_eq!(block(1_024, 65_535), Some(Class::SymmetricRandom));
        let preserving =
            class_of(|facts| (facts.mapping_varies_by_address, facts.preserves_port) = (Some(true), Some(true)));
        assert_eq!(preserving, Some(Class::SymmetricPreserving));
    }
}
