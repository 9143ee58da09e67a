#!/usr/bin/env python3
"""Packets on their way along the segments of SRv6, made by scapy; the tests of src/tunnel make the same of each other.

    pip install scapy==2.8.0 && tests/golden/tunnels/srv6.py >tests/golden/tunnels/srv6.txt

A line per frame: its name, and its bytes in hexadecimal. A name is what happened to the packet: "h.encaps" and what follows it, by the names
of RFC 8986 §5, and then each End on the way.
"""
from scapy.all import IP, IPv6, UDP, Ether, IPv6ExtHdrDestOpt, IPv6ExtHdrSegmentRouting, PadN, raw
from scapy.layers.inet6 import IPv6ExtHdrSegmentRoutingTLV, IPv6ExtHdrSegmentRoutingTLVPadN

ETHERNET = 143
PATH = ["2001:db8::11", "2001:db8::12", "2001:db8::13"]


def inner(name):
    transport = UDP(sport=1000, dport=2000) / b"wye"
    if name == "of-86dd":
        return 41, IPv6(src="fd00::1", dst="fd00::2") / transport
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=1) / transport
    if name == "of-0800":
        return 4, packet
    return ETHERNET, Ether(dst="02:00:00:00:00:0b", src="02:00:00:00:00:0a") / packet


def frame(destination, hops, next_header, rest):
    ether = Ether(dst="0b:0b:0b:0b:0b:0b", src="0a:0a:0a:0a:0a:0a")
    return ether / IPv6(src="2001:db8::1", dst=destination, nh=next_header, hlim=64 - hops) / rest


def emit(name, packet):
    print(name, raw(packet).hex())


def encapsulated():
    for what in ("of-0800", "of-86dd", "l2"):
        proto, packet = inner(what)
        for how, listed in (("h.encaps", PATH), ("h.encaps.red", PATH[1:])):
            for hops, suffix in enumerate(("", "-end", "-end-end")):
                # scapy's list is the header's: the last segment of the path first.
                srh = IPv6ExtHdrSegmentRouting(
                    nh=proto, addresses=list(reversed(listed)), segleft=2 - hops, lastentry=len(listed) - 1
                )
                emit(f"{how}-{what}{suffix}", frame(PATH[hops], hops, 43, srh / packet))
            emit(f"{how}-{what}-end-end.psp", frame(PATH[2], 2, proto, packet))
        emit(f"h.encaps.red.one-{what}", frame(PATH[2], 0, proto, packet))


def with_transport():
    """A packet that its sender routed itself: the transport's checksum has the last segment for its destination all the way."""

    def srh(left):
        tlvs = [IPv6ExtHdrSegmentRoutingTLV(type=0xFE, len=2, value=b"ab"), IPv6ExtHdrSegmentRoutingTLVPadN(len=2, padding=b"\0\0")]
        return IPv6ExtHdrSegmentRouting(
            nh=17, addresses=[PATH[2], PATH[0]], segleft=left, lastentry=1, tag=0x1234, tlv_objects=tlvs
        )

    transport = UDP(sport=1000, dport=2000) / b"wye"
    for hops, suffix in enumerate(("", "-end")):
        options = IPv6ExtHdrDestOpt(nh=43, options=[PadN(optdata=bytes(4))])
        emit(f"udp{suffix}", frame(PATH[2 * hops], hops, 60, options / srh(1 - hops) / transport))
    options = IPv6ExtHdrDestOpt(nh=17, options=[PadN(optdata=bytes(4))])
    emit("udp-end.psp", frame(PATH[2], 1, 60, options / transport))


encapsulated()
with_transport()
