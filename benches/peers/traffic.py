"""Traces: the packets that `wye bench` sends, as pcap files for the others.

`tuple_of` and `shuffled` do what `src/bin/wye/bench/trace.rs` does; `SAME_AS_WYE` is a hash of one trace that a unit test there
pins as well, so that neither side can drift away from the other unnoticed.
"""

import struct

SAME_AS_WYE = 0xB9ECA573A4988DFD


def mix(i):
    z = (i + 0x9E3779B9) & 0xFFFFFFFF
    z = (z ^ z >> 16) * 0x21F0AAAD & 0xFFFFFFFF
    z = (z ^ z >> 15) * 0x735A2D97 & 0xFFFFFFFF
    return z ^ z >> 15


def tuple_of(i):
    """Source and destination address, source port of connection `i`. The destination's first 16 bits take 1024 values."""
    m = mix(i)
    src = 0x0A000000 | i * 2654435761 & 0xFFFFFF
    dst = (20 + i % 64) << 24 | (i // 64 % 16) << 16 | m & 0xFFFF
    return src, dst, 1024 + (m >> 16) % 60000


def shuffled(flows):
    order, state = list(range(flows)), 1
    for i in range(flows - 1, 0, -1):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        j = (state >> 33) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def ipv4(src, dst, payload_len, ttl=64, flags=0x4000, ident=1):
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + payload_len, ident, flags, ttl, 17, 0, src, dst)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:]


def frame(i, size=64):
    """UDP, `size` bytes, the payload zero, no UDP checksum."""
    src, dst, sport = tuple_of(i)
    head = bytes.fromhex("020000000002" "020000000001" "0800") + ipv4(src, dst, size - 34)
    return (head + struct.pack("!HHHH", sport, 53, size - 34, 0)).ljust(size, b"\0")


def vxlan(inner, i, vni, macs, addresses):
    """`inner` in VXLAN over IPv4 without a UDP checksum; the source port tells connections apart, as RFC 7348 §5 advises."""
    udp_len = 8 + 8 + len(inner)
    udp = struct.pack("!HHHH", 49152 + mix(i) % 16384, 4789, udp_len, 0)
    header = struct.pack("!II", 0x08000000, vni << 8)
    return macs + b"\x08\0" + ipv4(*addresses, udp_len) + udp + header + inner


def trace(flows, build=frame):
    """A frame of each connection, in the order in which they are sent, over and over."""
    return [build(i) for i in shuffled(flows)]


def write_pcap(path, frames):
    with open(path, "wb") as f:
        f.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for data in frames:
            f.write(struct.pack("=IIII", 0, 0, len(data), len(data)) + data)


def fnv(frames):
    h = 0xCBF29CE484222325
    for byte in b"".join(frames):
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def check_same_as_wye():
    if fnv(trace(1000) * 4) != SAME_AS_WYE:  # Wye keeps small traces several times
        raise SystemExit("traffic.py no longer makes the packets that `wye bench` sends: see SAME_AS_WYE")
