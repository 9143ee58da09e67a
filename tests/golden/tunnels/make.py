#!/usr/bin/env python3
"""Frames of every kind of tunnel, made by scapy; the tests of src/tunnel open them and push the same.

    pip install scapy==2.8.0 && tests/golden/tunnels/make.py >tests/golden/tunnels/frames.txt

A line per frame: its name, and its bytes in hexadecimal. src/tunnel/tests/variants.rs says in Rust what the names stand for.
"""
from scapy.all import IP, IPv6, UDP, Ether, GRE, IPv6ExtHdrSegmentRouting, raw
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.layers.vxlan import VXLAN

V4, V6, TEB = 0x0800, 0x86DD, None
SEQUENCE, SOURCE_PORT = 7, 46884
# 12,345.6789 s in units of 100 µs.
TIMESTAMP = 123456789
# The low 20 bits of the hash of the inner packet's flow.
FLOW_LABEL = 0x01234


def inner(ethertype):
    transport = UDP(sport=1000, dport=2000) / b"wye"
    if ethertype == V6:
        return IPv6(src="fd00::1", dst="fd00::2") / transport
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=1) / transport
    if ethertype == V4:
        return packet
    return Ether(dst="02:00:00:00:00:0b", src="02:00:00:00:00:0a") / packet


def outer(v6, **fields):
    ether = Ether(dst="0b:0b:0b:0b:0b:0b", src="0a:0a:0a:0a:0a:0a")
    if v6:
        return ether / IPv6(src="2001:db8::1", dst="2001:db8::2", **fields)
    return ether / IP(src="192.0.2.1", dst="192.0.2.2", id=1, **fields)


def emit(name, v6, checksum, packet):
    name = f"{name}-{'ipv6' if v6 else 'ipv4'}{'-checksum' if checksum else ''}"
    print(name, raw(packet).hex())


def udp(name, v6, checksum, port, own, ethertype):
    # A checksum of None is one that scapy computes.
    header = UDP(sport=SOURCE_PORT, dport=port, chksum=None if checksum else 0)
    emit(name, v6, checksum, outer(v6) / header / own / inner(ethertype))


def of(name, ethertype):
    return name if ethertype is None else f"{name}-of-{ethertype:04x}"


def vxlan_and_geneve(v6):
    for checksum in (False, True):
        udp("vxlan", v6, checksum, 4789, VXLAN(flags=0x08, vni=0xABCDEF), TEB)
        group = VXLAN(flags=0x88, gpflags=0x48, gpid=0x1234, vni=1000)
        udp("vxlan-gbp", v6, checksum, 4789, group, TEB)
        for ethertype, next_protocol in ((TEB, 3), (V4, 1), (V6, 2)):
            gpe = VXLAN(flags=0x0C, NextProtocol=next_protocol, vni=0xABCDEF)
            udp(of("vxlan-gpe", ethertype), v6, checksum, 4790, gpe, ethertype)
        udp("geneve", v6, checksum, 6081, GENEVE(vni=0xABCDEF, proto=0x6558), TEB)
        options = [
            GeneveOptions(classid=0x0102, type=0x80, length=1, data=bytes([1, 2, 3, 4])),
            GeneveOptions(classid=0xFFFF, type=0x03, length=0, data=b""),
        ]
        geneve = GENEVE(vni=0xABCDEF, proto=0x6558, oam=1, critical=1, options=options)
        udp("geneve-options", v6, checksum, 6081, geneve, TEB)


def gre(v6):
    for name, checksum, key, sequence in (
        ("gre", False, False, False),
        ("gre", True, False, False),
        ("gre-key", False, True, False),
        ("gre-seq", False, False, True),
        ("gre-key-seq", True, True, True),
    ):
        for ethertype in (TEB, V4, V6):
            header = GRE(
                proto=ethertype or 0x6558,
                chksum_present=int(checksum),
                key_present=int(key),
                seqnum_present=int(sequence),
                key=0xFEDCBA98 if key else None,
                seqence_number=SEQUENCE if sequence else None,
            )
            emit(of(name, ethertype), v6, checksum, outer(v6) / header / inner(ethertype))


def erspan(v6):
    for name, proto, own in (
        ("erspan-2", 0x88BE, ERSPAN_II(ver=1, vlan=0, en=0, session_id=0x2BC, index=0xABCDE)),
        (
            "erspan-3",
            0x22EB,
            ERSPAN_III(ver=2, session_id=0x2BC, timestamp=TIMESTAMP, sgt_other=0, p=0, ft=0, hw=0x2A, d=1, gra=0, o=0),
        ),
    ):
        header = GRE(proto=proto, seqnum_present=1, seqence_number=SEQUENCE)
        emit(name, v6, False, outer(v6) / header / own / inner(TEB))


def gtpu(v6):
    for name, checksum, sequence, npdu, qfi in (
        ("gtpu", False, False, False, False),
        ("gtpu", True, False, False, False),
        ("gtpu-seq", False, True, False, False),
        ("gtpu-npdu", False, False, True, False),
        ("gtpu-qfi", False, False, False, True),
        ("gtpu-seq-qfi", True, True, False, True),
    ):
        for ethertype in (V4, V6):
            fields = {"S": int(sequence), "PN": int(npdu), "E": int(qfi)}
            if sequence:
                fields["seq"] = SEQUENCE
            if qfi:
                fields["next_ex"] = 0x85
            own = GTP_U_Header(teid=0x12345678, gtp_type=255, **fields)
            if qfi:
                own /= GTPPDUSessionContainer(type=1, QFI=9)
            udp(of(name, ethertype), v6, checksum, 2152, own, ethertype)


def srv6():
    for name, segments in (
        ("srv6-reduced", []),
        ("srv6", ["2001:db8::2"]),
        ("srv6-three", ["2001:db8::23", "2001:db8::22", "2001:db8::2"]),
    ):
        for ethertype, proto in ((V4, 4), (V6, 41)):
            if segments:
                # scapy's list is the header's: the last segment of the path first.
                listed = list(reversed(segments))
                srh = IPv6ExtHdrSegmentRouting(nh=proto, addresses=listed, segleft=0, lastentry=len(listed) - 1)
                packet = outer(True, fl=FLOW_LABEL, nh=43) / srh
            else:
                packet = outer(True, fl=FLOW_LABEL, nh=proto)
            emit(of(name, ethertype), True, False, packet / inner(ethertype))


for is_v6 in (False, True):
    vxlan_and_geneve(is_v6)
    gre(is_v6)
    erspan(is_v6)
    gtpu(is_v6)
srv6()
