"""Sends frames to the bare guest as fast as it takes them: `net_flood.py BYTES CREDIT WINDOW [SEGMENT]`.

Frames of BYTES go in bursts of CREDIT, WINDOW bursts ahead of what the guest has told to have received. With
SEGMENT they are TCP that is still to be cut into segments. Runs until it is killed."""

import socket
import struct
import sys

HOST, GUEST = ("10.9.0.1", 7000), ("10.9.0.2", 7)
MAC = bytes.fromhex("525400123456")
SOL_PACKET, PACKET_VNET_HDR = 263, 15
SOL_UDP, UDP_SEGMENT = 17, 103

size, credit, window, *segment = map(int, sys.argv[1:])
told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
told.bind(HOST)
told.connect(GUEST)

if segment:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
    wire.bind(("tap0", 0x0800))
    header = struct.pack("<BBHHHH", 1, 1, 54, segment[0], 34, 16)
    addresses = b"".join(socket.inet_aton(address) for address, _ in (HOST, GUEST))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size - 14, 0, 0, 64, 6, 0) + addresses
    tcp = struct.pack("!HHIIBBHHH", 7000, 7, 0, 0, 0x50, 0x10, 0, 0, 0)
    start = header + MAC + bytes(6) + b"\x08\x00" + ip + tcp
    frame = start + bytes(10 + size - len(start))

    def burst():
        for _ in range(credit):
            wire.send(frame)

else:
    told.setsockopt(SOL_UDP, UDP_SEGMENT, size - 42)
    payload = bytes((size - 42) * credit)

    def burst():
        told.send(payload)


for _ in range(window):
    burst()
while told.recv(64):
    burst()
