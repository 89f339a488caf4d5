// The first C# program: is the event's layout here what the library says it is, and do a node's basic calls work?
// C# 7.2, which every Unity since 2021 takes. Built by `mcs -unsafe`, run with liblanline.so on the library path.
using System;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace Lanline
{
    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct Address
    {
        public byte Family;
        public byte Reserved;
        public ushort Port;
        public uint Scope;
        public fixed byte Ip[16];
    }

    // Pointers take 8 bytes on every target, so they are kept as 64-bit numbers.
    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct Event
    {
        public uint Type;
        public uint Request;
        public ulong TimeUs;
        public ulong Peer;
        public ulong Peer2;
        public int Code;
        public uint Flags;
        public byte Channel;
        public byte Mode;
        public byte Path;
        public byte PathFrom;
        public uint Count;
        public Address Address;
        public ulong Data;
        public uint DataLength;
        public uint TextLength;
        public ulong Text;
        public fixed byte Reserved[32];
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct NodeOptions
    {
        public uint StructSize;
        public uint MaxPeers;
        public ulong App;
        public uint AppLength;
        public uint BindLength;
        public ulong Bind;
        public ulong IdentityFile;
        public uint IdentityFileLength;
        public uint AccessKeyLength;
        public ulong AccessKey;
        public ulong PublicAddress;
        public uint PublicAddressLength;
        public uint LostPeerTimeoutMs;
        public uint RouterMax;
        public uint JoinTimeoutMs;
        public byte RelayPolicy;
        public byte AcceptFrom;
        public byte JoinManual;
        public byte PartialMesh;
        public uint Reserved0;
        public ulong SessionPassword;
        public uint SessionPasswordLength;
        public uint Reserved1;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct PeerStats
    {
        public uint StructSize;
        public byte Path;
        public fixed byte Reserved[3];
        public Address Address;
        public ulong RttUs, MinRttUs, DatagramsSent, DatagramsReceived, BytesSent, BytesReceived;
        public ulong PacketsLost, MessagesSent, MessagesReceived, BytesQueued, CongestionWindow;
        public uint Mtu;
        public uint Reserved1;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct NodeStats
    {
        public uint StructSize;
        public uint Peers;
        public byte ServerConnected;
        public fixed byte Reserved[7];
        public Address Observed;
        public ulong DatagramsDropped, UnreliableDropped, EventsPending;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct Participant
    {
        public ulong Peer, RttUs;
        public byte Path, IsHost;
        public fixed byte Reserved[6];
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct JoinMember
    {
        public ulong Peer;
        public byte State;
        public fixed byte Reserved[7];
        public fixed byte Text[112];
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct NatDetectOptions
    {
        public uint StructSize;
        public uint LifetimeUpToMs;
        public ulong StunHost;
        public uint StunHostLength;
        public ushort StunPort;
        public ushort Reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct NatFacts
    {
        public uint StructSize;
        public byte Type, Known, Certain, Friendly;
        public sbyte MappingVariesByAddress, MappingVariesByPort, FiltersByAddress, FiltersByPort, PreservesPort;
        public sbyte Hairpin, Untranslated, SeveralAddresses, UdpBlocked, DoubleNat;
        public byte PortStepKnown, PortBlockKnown;
        public short PortStep;
        public ushort PortBlockFirst, PortBlockLast;
        public byte MappedProtocol, MappedCount;
        public uint LifetimeAtLeastMs, LifetimeBelowMs, Reserved;
        public ulong RoundTripUs;
        public Address PublicV4, PublicV6, Mapped;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct ManualPort
    {
        public uint StructSize;
        public ushort Port;
        public byte Protocol, Lasting;
        public Address Internal;
    }

    internal static unsafe class Native
    {
        private const string Library = "lanline";
        private const CallingConvention C = CallingConvention.Cdecl;

        [DllImport(Library, CallingConvention = C)] public static extern uint lanline_abi_version();
        [DllImport(Library, CallingConvention = C)] public static extern uint lanline_struct_size(uint id);
        [DllImport(Library, CallingConvention = C)] public static extern uint lanline_event_field_offset(uint field);
        [DllImport(Library, CallingConvention = C)] public static extern IntPtr lanline_result_name(int code);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_last_error(byte* buffer, uint capacity);
        [DllImport(Library, CallingConvention = C)] public static extern void lanline_node_options_init_sized(NodeOptions* options, uint size);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_node_create(NodeOptions* options, out uint node);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_node_destroy(uint node, uint timeoutMs);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_node_guid(uint node, out ulong guid);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_node_address(uint node, out Address address);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_poll(uint node, Event* events, uint stride, uint capacity);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_wait(uint node, uint timeoutMs);
        [DllImport(Library, CallingConvention = C)]
        public static extern int lanline_peer_connect(uint node, ulong peer, Address* address, out uint request);
        [DllImport(Library, CallingConvention = C)]
        public static extern int lanline_send(uint node, ulong peer, byte channel, byte mode, byte* data, uint length);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_shutdown_all(uint timeoutMs);
        [DllImport(Library, CallingConvention = C)] public static extern int lanline_nat_facts_get(uint node, NatFacts* facts);
        [DllImport(Library, CallingConvention = C)]
        public static extern int lanline_port_manual(uint node, ManualPort* port, byte* buffer, uint capacity);
    }

    internal static unsafe class LayoutCheck
    {
        private const uint AbiVersion = 1;
        private const uint EventConnected = 30;
        private const uint EventMessage = 33;
        private const byte ReliableOrdered = 3;
        private const int InvalidNode = -2;
        // A bound for a broken run.
        private const long PatienceMs = 10000;

        private static int failures;

        private static void Check(bool good, string what)
        {
            if (good) return;
            failures++;
            Console.WriteLine("wrong: " + what);
        }

        private static void CheckSame(string what, long here, long library)
        {
            Check(here == library, what + ": " + here + " here, " + library + " in the library");
        }

        private static void CheckResult(int result, string call)
        {
            if (result >= 0) return;
            byte* text = stackalloc byte[512];
            Native.lanline_last_error(text, 512);
            Check(false, call + ": " + Marshal.PtrToStringAnsi(Native.lanline_result_name(result)) + ": "
                + Marshal.PtrToStringAnsi((IntPtr)text));
        }

        private static void CheckSizes()
        {
            CheckSame("ABI version", AbiVersion, Native.lanline_abi_version());
            int[] sizes = {
                0, sizeof(Event), sizeof(Address), sizeof(NodeOptions), sizeof(PeerStats), sizeof(NodeStats), sizeof(Participant),
                sizeof(JoinMember), sizeof(NatDetectOptions), sizeof(NatFacts), sizeof(ManualPort)
            };
            for (int id = 1; id < sizes.Length; id++)
                CheckSame("size of struct " + id, sizes[id], Native.lanline_struct_size((uint)id));
            CheckSame("size of the event", 128, sizeof(Event));
        }

        private static void CheckOffsets()
        {
            Event one = new Event();
            byte* start = (byte*)&one;
            byte*[] fields = {
                (byte*)&one.Type, (byte*)&one.Request, (byte*)&one.TimeUs, (byte*)&one.Peer, (byte*)&one.Peer2, (byte*)&one.Code,
                (byte*)&one.Flags, &one.Channel, &one.Mode, &one.Path, &one.PathFrom, (byte*)&one.Count, (byte*)&one.Address,
                (byte*)&one.Data, (byte*)&one.DataLength, (byte*)&one.TextLength, (byte*)&one.Text, one.Reserved
            };
            for (int field = 0; field < fields.Length; field++)
                CheckSame("offset of event field " + field, fields[field] - start, Native.lanline_event_field_offset((uint)field));
            CheckSame("offset of an unknown field", uint.MaxValue, Native.lanline_event_field_offset((uint)fields.Length));
        }

        private static uint CreateNode()
        {
            byte[] app = Encoding.UTF8.GetBytes("csharp-check"), bind = Encoding.UTF8.GetBytes("127.0.0.1:0");
            NodeOptions options;
            uint node;
            Native.lanline_node_options_init_sized(&options, (uint)sizeof(NodeOptions));
            CheckSame("struct_size that the library sets", sizeof(NodeOptions), options.StructSize);
            fixed (byte* appBytes = app, bindBytes = bind)
            {
                options.App = (ulong)appBytes;
                options.AppLength = (uint)app.Length;
                options.Bind = (ulong)bindBytes;
                options.BindLength = (uint)bind.Length;
                CheckResult(Native.lanline_node_create(&options, out node), "lanline_node_create");
            }
            return node;
        }

        // Facts are where this side looks for them: unknown ones are -1, and the port set by hand is the node's own.
        private static void CheckNat()
        {
            uint node = CreateNode();
            Address address;
            NatFacts facts = new NatFacts();
            ManualPort port = new ManualPort();
            facts.StructSize = (uint)sizeof(NatFacts);
            port.StructSize = (uint)sizeof(ManualPort);
            CheckResult(Native.lanline_node_address(node, out address), "lanline_node_address");
            CheckResult(Native.lanline_nat_facts_get(node, &facts), "lanline_nat_facts_get");
            CheckSame("mapping by address, which is not known", -1, facts.MappingVariesByAddress);
            CheckSame("double NAT, which is not known", -1, facts.DoubleNat);
            CheckSame("family of the mapped address, which there is not", 0, facts.Mapped.Family);
            CheckResult(Native.lanline_port_manual(node, &port, null, 0), "lanline_port_manual");
            CheckSame("the port to forward", address.Port, port.Port);
            CheckSame("the port inside", address.Port, port.Internal.Port);
            CheckResult(Native.lanline_node_destroy(node, 1000), "lanline_node_destroy");
        }

        // Waits for an event of that type; text of its data, or null in time-out.
        private static string Await(uint node, uint type, out ulong peer)
        {
            Event* events = stackalloc Event[16];
            Stopwatch time = Stopwatch.StartNew();
            peer = 0;
            while (time.ElapsedMilliseconds < PatienceMs)
            {
                Native.lanline_wait(node, 100);
                int count = Native.lanline_poll(node, events, (uint)sizeof(Event), 16);
                CheckResult(count, "lanline_poll");
                if (count < 0) return null;
                for (int i = 0; i < count; i++)
                {
                    if (events[i].Type != type) continue;
                    peer = events[i].Peer;
                    return events[i].DataLength == 0 ? "" : Encoding.UTF8.GetString((byte*)events[i].Data, (int)events[i].DataLength);
                }
            }
            return null;
        }

        // Two nodes on loopback: one connects to the other's address and sends it a message.
        private static void CheckConversation()
        {
            uint first = CreateNode(), second = CreateNode(), request;
            ulong guid, peer, sender;
            Address address;
            CheckResult(Native.lanline_node_guid(second, out guid), "lanline_node_guid");
            CheckResult(Native.lanline_node_address(second, out address), "lanline_node_address");
            CheckResult(Native.lanline_peer_connect(first, guid, &address, out request), "lanline_peer_connect");
            Check(Await(first, EventConnected, out peer) != null && peer == guid, "CONNECTED does not come");
            byte[] words = Encoding.UTF8.GetBytes("hello from C#");
            fixed (byte* bytes = words)
                CheckResult(Native.lanline_send(first, guid, 0, ReliableOrdered, bytes, (uint)words.Length), "lanline_send");
            Check(Await(second, EventMessage, out sender) == "hello from C#", "the message does not come");
            ulong own;
            CheckResult(Native.lanline_node_guid(first, out own), "lanline_node_guid");
            CheckSame("sender of the message", (long)own, (long)sender);
            CheckResult(Native.lanline_node_destroy(first, 1000), "lanline_node_destroy");
            CheckSame("destroying it again", InvalidNode, Native.lanline_node_destroy(first, 1000));
            CheckResult(Native.lanline_shutdown_all(1000), "lanline_shutdown_all");
        }

        private static int Main()
        {
            CheckSizes();
            CheckOffsets();
            if (failures == 0) CheckNat();
            if (failures == 0) CheckConversation();
            Console.WriteLine(failures == 0 ? "C#: layouts agree, two nodes talked" : "C#: " + failures + " faults");
            return failures == 0 ? 0 : 1;
        }
    }
}
