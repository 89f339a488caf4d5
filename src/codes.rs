//! Numbers and names that games see. Numbers are never reused.

macro_rules! numbered {
    ($(#[$outer:meta])* $name:ident : $repr:ty { $($(#[$inner:meta])* $variant:ident = $value:literal $label:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$inner])* $variant = $value,)* }

        impl $name {
            /// All values, in the order of the header.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name as games and logs see it, in capitals.
            pub const fn name(self) -> &'static str { match self { $($name::$variant => $label,)* } }
            /// The name with a NUL behind it, for C.
            pub const fn name_c(self) -> &'static std::ffi::CStr {
                // The literal has exactly one NUL, at its end.
                match self { $($name::$variant => match std::ffi::CStr::from_bytes_with_nul(concat!($label, "\0").as_bytes()) { Ok(name) => name, Err(_) => panic!("a label holds a NUL") },)* }
            }
            /// The number of the C ABI.
            pub const fn number(self) -> $repr { self as $repr }
            /// The value with that number, if there is one.
            pub fn from_number(number: $repr) -> Option<Self> { match number { $($value => Some($name::$variant),)* _ => None } }
        }
    };
}

numbered! {
    /// Results of calls (0 and -1 … -99) and reasons carried by events (-100 and below).
    Code: i32 {
        /// It worked.
        Ok = 0 "OK",
        /// An argument is NULL, out of range, not UTF-8, or too long; the last error names it.
        InvalidArgument = -1 "INVALID_ARGUMENT",
        /// The node id is 0, was destroyed, or never existed.
        InvalidNode = -2 "INVALID_NODE",
        /// Another thread is polling or waiting on this node.
        Busy = -3 "BUSY",
        /// Queues are full; poll and try again next frame.
        QueueFull = -4 "QUEUE_FULL",
        /// There is no connection to that peer (or to a server).
        NotConnected = -5 "NOT_CONNECTED",
        /// The message is larger than its mode allows.
        TooLarge = -6 "TOO_LARGE",
        /// `struct_size` does not belong to any version of that struct.
        WrongSize = -7 "WRONG_SIZE",
        /// This build cannot do that.
        Unsupported = -8 "UNSUPPORTED",
        /// No such peer, request, member or row.
        NotFound = -9 "NOT_FOUND",
        /// A fault inside the library (a panic was caught). Report it.
        Internal = -10 "INTERNAL",
        /// The system refused memory, sockets or threads.
        OutOfResources = -11 "OUT_OF_RESOURCES",
        /// A file or socket could not be used; the last error says which and why.
        Io = -12 "IO",
        /// Not possible in the present state (for example not the host).
        WrongState = -13 "WRONG_STATE",
        /// The target is this node itself.
        Self_ = -14 "SELF",

        /// Nothing came back in time.
        NoAnswer = -100 "NO_ANSWER",
        /// The other side declined.
        Refused = -101 "REFUSED",
        /// The other side has as many connections as it allows.
        Full = -102 "FULL",
        /// The other side speaks an incompatible protocol version, or plays another game (app id).
        Incompatible = -103 "INCOMPATIBLE",
        /// The other side holds another key than was expected.
        WrongKey = -104 "WRONG_KEY",
        /// The server wants another access key.
        WrongAccessKey = -105 "WRONG_ACCESS_KEY",
        /// The relay policy of one of the sides forbids it.
        Policy = -106 "POLICY",
        /// The game cancelled the request.
        Cancelled = -107 "CANCELLED",
        /// There is no session with a server, or it was lost on the way.
        ServerLost = -108 "SERVER_LOST",
        /// The same identity connected to the server from elsewhere; the newest wins.
        Replaced = -109 "REPLACED",
        /// It took too long.
        Timeout = -110 "TIMEOUT",
        /// The target is not connected to this server.
        TargetNotConnected = -111 "TARGET_NOT_CONNECTED",
        /// The target is connected to the server but does not react.
        TargetUnresponsive = -112 "TARGET_UNRESPONSIVE",
        /// The target left the server while the attempt was running.
        TargetLost = -113 "TARGET_LOST",
        /// The same attempt is running already.
        AlreadyInProgress = -114 "ALREADY_IN_PROGRESS",
        /// The peer went silent for longer than the lost-peer time.
        Lost = -115 "LOST",
        /// The connection was closed on purpose, by either side.
        Closed = -116 "CLOSED",
        /// The host removed this player, or a player was removed.
        Kicked = -117 "KICKED",
        /// Too many requests; the text says of which kind.
        RateLimited = -118 "RATE_LIMITED",
        /// The server's name could not be resolved.
        NameNotResolved = -119 "NAME_NOT_RESOLVED",
        /// No candidate answered: the two routers cannot be crossed directly.
        NoDirectPath = -120 "NO_DIRECT_PATH",
        /// The host's game turned the join down.
        Rejected = -121 "REJECTED",
        /// The session's host was lost in the middle.
        HostLost = -122 "HOST_LOST",
        /// A member of the session could not be reached.
        MemberUnreachable = -123 "MEMBER_UNREACHABLE",
        /// The node was destroyed while the request ran.
        Destroyed = -124 "DESTROYED",
        /// The peer left the session.
        Left = -125 "LEFT",
        /// The other side broke the protocol.
        ProtocolViolation = -126 "PROTOCOL_VIOLATION",
        /// No router answers to UPnP, PCP or NAT-PMP, or none of them gives a port.
        NoMapping = -127 "NO_MAPPING",
    }
}

numbered! {
    /// Event types of the C ABI. Games ignore types they do not know.
    EventType: u32 {
        /// Something inside the library failed beyond repair; the node is dead. Destroy it.
        Fatal = 1 "FATAL",
        /// `count` unreliable messages were dropped: because the game did not poll in time, or (`peer` says whose) because a part of a
        /// split one was lost, or the path became too small for one. Packets that the network lost are not in it.
        Dropped = 2 "DROPPED",
        /// Something a developer should know; `text` says it. No action needed.
        Notice = 3 "NOTICE",
        /// What was found out about this machine's way to others: `data` is the report as JSON, `text` the same for people.
        Report = 4 "REPORT",

        /// The server accepted this node. `data` is its 32-byte key; `flags` bit 0: the key was verified.
        ServerConnected = 10 "SERVER_CONNECTED",
        /// The server could not be reached or refused; `code` and `text` say why.
        ServerFailed = 11 "SERVER_FAILED",
        /// The session with the server ended unasked. Unless `code` is REPLACED, it is being re-opened.
        ServerLost = 12 "SERVER_LOST",
        /// The lost session with the server is back.
        ServerReconnected = 13 "SERVER_RECONNECTED",
        /// The session with the server was closed as asked.
        ServerDisconnected = 14 "SERVER_DISCONNECTED",

        /// A way to `peer` is open: `path`, `address`; `flags` bit 0: this node asked for it.
        NatPunchthroughSucceeded = 20 "NAT_PUNCHTHROUGH_SUCCEEDED",
        /// No way to `peer` could be opened; `code`, `text`; `flags` bit 0: this node asked for it.
        NatPunchthroughFailed = 21 "NAT_PUNCHTHROUGH_FAILED",
        /// `peer` is not at this server.
        NatTargetNotConnected = 22 "NAT_TARGET_NOT_CONNECTED",
        /// `peer` is at this server, but does not react.
        NatTargetUnresponsive = 23 "NAT_TARGET_UNRESPONSIVE",
        /// `peer` left the server while the attempt was running.
        NatConnectionToTargetLost = 24 "NAT_CONNECTION_TO_TARGET_LOST",
        /// An attempt between the same two is running; that one still ends with its own event.
        NatAlreadyInProgress = 25 "NAT_ALREADY_IN_PROGRESS",
        /// What is known of this node's NAT: `count` is the type (LANLINE_NAT_TYPE_…), `flags` bit 0: certain, bit 1: friendly (players
        /// behind most routers can reach this one), `address` the public address, `text` the facts for people. `code` is not OK if less could be
        /// found out than usual, and says why. The facts themselves: lanline_nat_facts_get, lanline_nat_text.
        NatType = 26 "NAT_TYPE",
        /// A router forwards a port to this node: `address` is the external one, `count` the protocol (LANLINE_MAPPING_…), `flags` bit 0:
        /// another router stands before that one, so that strangers still do not get through (`text` says so).
        PortMapped = 27 "PORT_MAPPED",
        /// No router forwards a port; `code` and `text` say why.
        PortMappingFailed = 28 "PORT_MAPPING_FAILED",
        /// How far port mapping is; `text` says it.
        PortMappingProgress = 29 "PORT_MAPPING_PROGRESS",

        /// `peer` is connected: `path`, `address`. Request 0 at the side that was called.
        Connected = 30 "CONNECTED",
        /// No connection to `peer`; `code` and `text` say why.
        ConnectionFailed = 31 "CONNECTION_FAILED",
        /// The connection to `peer` ended: `code` LOST, CLOSED, KICKED, REFUSED; `count` the number and `text` the words the other side gave.
        Disconnected = 32 "DISCONNECTED",
        /// A message: `channel`, `mode`, `data`.
        Message = 33 "MESSAGE",
        /// The connection to `peer` moved from `path_from` to `path`; `address` is the new one.
        PathChanged = 34 "PATH_CHANGED",

        /// Client: `peer`, the host, named the session's members; `data` from it. `count` members are to be connected to: those that
        /// lanline_join_members lists, without the host and this node, so 0 for the first who joins.
        VerifiedJoinStart = 40 "VERIFIED_JOIN_START",
        /// Host: `peer` reached everyone; answer with respond_join. `data` from the joiner.
        VerifiedJoinCapable = 41 "VERIFIED_JOIN_CAPABLE",
        /// Client: in. `data` from the host; `count` members, the host and this node included.
        VerifiedJoinAccepted = 42 "VERIFIED_JOIN_ACCEPTED",
        /// Client: the host's game declined. `data` from the host.
        VerifiedJoinRejected = 43 "VERIFIED_JOIN_REJECTED",
        /// Either side: the join ended without a decision; `code`, `text`; `peer2` the member that could not be reached.
        VerifiedJoinFailed = 44 "VERIFIED_JOIN_FAILED",

        /// `peer` is the session's host now, `peer2` the one before (0: none).
        NewHost = 50 "NEW_HOST",
        /// `peer` is in the session.
        MemberJoined = 51 "MEMBER_JOINED",
        /// `peer` left the session: `code` LEFT, LOST, KICKED.
        MemberLeft = 52 "MEMBER_LEFT",

        /// The player `peer2` forwards between this node and `peer`, as this node asked.
        RouterForwardingEstablished = 60 "ROUTER_FORWARDING_ESTABLISHED",
        /// No connected player is willing to forward to `peer` and reaches it; `code`, `text`.
        RouterForwardingNoPath = 61 "ROUTER_FORWARDING_NO_PATH",
        /// Those that were willing to forward to `peer` failed; `code`, `text`.
        RouterForwardingFailed = 62 "ROUTER_FORWARDING_FAILED",
        /// The player `peer2` forwards between this node and `peer` now: because `peer` asked for it, or because the one before is gone.
        RouterRerouted = 63 "ROUTER_REROUTED",

        /// A proxy server, at `address`, forwards between this node and `peer`, as this node asked.
        ProxyForwardingSucceeded = 70 "PROXY_FORWARDING_SUCCEEDED",
        /// There is no proxy server, none that answers, or none that may be used; `code`, `text`.
        ProxyNoServersOnline = 71 "PROXY_NO_SERVERS_ONLINE",
        /// `peer` is not at this server, or does not react; `code`, `text`.
        ProxyRecipientNotConnected = 72 "PROXY_RECIPIENT_NOT_CONNECTED",
        /// Every proxy server has as many pairs as it takes.
        ProxyAllServersBusy = 73 "PROXY_ALL_SERVERS_BUSY",
        /// The same wish is running; that one still ends with its own event.
        ProxyInProgress = 74 "PROXY_IN_PROGRESS",
        /// A proxy server, at `address`, forwards between this node and `peer`, who asked for it.
        ProxyForwardingNotification = 75 "PROXY_FORWARDING_NOTIFICATION",
    }
}

numbered! {
    /// RakNet's names for what a node sits behind. They are for people: what punching decides by are the facts.
    NatType: u8 {
        /// Not known.
        Unknown = 0 "UNKNOWN",
        /// Open to strangers: a public address without a filter.
        None = 1 "NONE",
        /// Whoever knows the mapped address gets through.
        FullCone = 2 "FULL_CONE",
        /// Addresses that were sent to get through.
        AddressRestricted = 3 "ADDRESS_RESTRICTED",
        /// Addresses with the port that was sent to get through.
        PortRestricted = 4 "PORT_RESTRICTED",
        /// Every destination sees another address.
        Symmetric = 5 "SYMMETRIC",
    }
}

numbered! {
    /// Whether two players can be connected directly.
    Connectivity: u8 {
        /// Not directly.
        Never = 0 "NEVER",
        /// It depends on what the names do not tell (how ports are chosen).
        Maybe = 1 "MAYBE",
        /// Yes.
        Yes = 2 "YES",
    }
}

numbered! {
    /// By which protocol a router was asked to forward a port.
    MappingProtocol: u8 {
        /// UPnP Internet Gateway Device, version 1 or 2.
        Upnp = 1 "upnp",
        /// Port Control Protocol (RFC 6887).
        Pcp = 2 "pcp",
        /// NAT Port Mapping Protocol (RFC 6886).
        NatPmp = 3 "natpmp",
    }
}

numbered! {
    /// How packets reach a peer; the smaller, the better.
    PathKind: u8 {
        /// No path.
        None = 0 "none",
        /// Inside one local network.
        Lan = 1 "lan",
        /// Directly, across the internet.
        Direct = 2 "direct",
        /// Through another player.
        Routed = 3 "routed",
        /// Through the server.
        Proxied = 4 "proxied",
    }
}

numbered! {
    /// How a message travels.
    SendMode: u8 {
        /// May be lost, repeated by nobody, and may arrive in any order.
        Unreliable = 0 "unreliable",
        /// May be lost; one that arrives after a newer one of its channel is dropped.
        UnreliableSequenced = 1 "unreliable_sequenced",
        /// Arrives once; a later message does not wait for an earlier one.
        Reliable = 2 "reliable",
        /// Arrives once, in the order of sending within its channel.
        ReliableOrdered = 3 "reliable_ordered",
    }
}

/// Channels are numbered 0 to 63.
pub const CHANNEL_COUNT: u8 = 64;
/// Largest reliable message in bytes (1 MiB).
pub const MAX_RELIABLE_MESSAGE: usize = 1 << 20;
/// Largest unreliable message in bytes (64 KiB).
pub const MAX_UNRELIABLE_MESSAGE: usize = 64 << 10;
/// Longest text that travels with a disconnect, in bytes.
pub const MAX_DISCONNECT_TEXT: usize = 256;
