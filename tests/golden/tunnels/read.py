#!/usr/bin/env python3
"""Reads a capture with scapy, and fails if a frame in it has a layer that scapy does not know, or would be written otherwise.

    tests/golden/tunnels/read.py FILE

A test of src/tunnel runs it on the frames that it pushes. Exits with 77 where scapy is missing.
"""
import sys

try:
    from scapy.all import IP, IPv6, UDP, GRE, Raw, conf, raw, rdpcap
    from scapy.contrib import erspan, geneve, gtp  # noqa: F401: they make their layers known
    from scapy.layers import vxlan  # noqa: F401
except ImportError:
    sys.exit(77)

conf.debug_dissector = True
count = 0
for number, frame in enumerate(rdpcap(sys.argv[1]), 1):
    layers = frame.layers()
    last = frame.lastlayer()
    if not isinstance(last, Raw) or last.load != b"wye" or layers.count(UDP) == 0:
        sys.exit(f"frame {number}: {frame!r}")
    written = frame.copy()
    # What scapy fills in where it is not given; a UDP checksum of 0 is given.
    for i in range(len(layers)):
        layer = written.getlayer(i)
        if isinstance(layer, IP):
            del layer.len, layer.chksum
        elif isinstance(layer, IPv6):
            del layer.plen
        elif isinstance(layer, UDP):
            del layer.len
            if layer.chksum:
                del layer.chksum
        elif isinstance(layer, GRE) and layer.chksum_present:
            layer.chksum = None
        elif isinstance(layer, gtp.GTP_U_Header):
            del layer.length
    if raw(written) != raw(frame):
        sys.exit(f"frame {number}: {raw(frame).hex()} would be {raw(written).hex()}: {frame!r}")
    count += 1
print(count, "frames")
