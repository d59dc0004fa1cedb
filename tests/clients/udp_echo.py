"""Sends datagrams to an echo port: `udp_echo.py ADDRESS PORT SECONDS SIZE…`, each answer being waited for
so long. Prints a line for each: the size that came back, or `none`. A size of 0 is the word that ends a
bare guest's test."""

import socket
import sys
import time

address, port, patience, *sizes = sys.argv[1:]
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect((address, int(port)))
for number, size in enumerate(map(int, sizes)):
    # No two alike, so that a late answer is not taken for another's.
    sent = bytes((number + n) % 251 for n in range(size)) or b"quit"
    deadline = time.monotonic() + float(patience)
    came = None
    # The first ones may be lost while addresses are found out.
    while came != sent and (left := deadline - time.monotonic()) > 0:
        try:
            client.settimeout(min(left, 0.2))
            client.send(sent)
            came = client.recv(65536)
        except OSError:
            pass
    print(size if came == sent else "none", flush=True)
