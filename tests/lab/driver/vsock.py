"""Many connections at once between programs of the host and one in the guest."""

from console import Failed
from monitors import IN_L1, CarawayGuest

SOCKET = "/run/vsock.sock"
PORT = 1024
CONNECTIONS = 1000
# Of each connection, each way.
BYTES = 16384
CONFIG = {"vsock": {"cid": 3, "to": f"unix:{SOCKET}"}}


def carries_many_connections(guest: CarawayGuest) -> None:
    """Each brings back what was sent through it, and no other's bytes."""
    # Python takes one descriptor a connection.
    guest.serial.run(f"(ulimit -n 4096; exec setsid lab-echo {PORT}) >/run/echo.log 2>&1 </dev/null &")
    told = guest.host(f"{IN_L1}/vsock-echo {SOCKET} {PORT} {CONNECTIONS} {BYTES}", 900).splitlines()[-1]
    if not told.startswith("done "):
        raise Failed(f"vsock: {told}; the guest: {guest.serial.run('tail -n 3 /run/echo.log')}")
    print(f"# vsock: {CONNECTIONS} connections at once, {BYTES} bytes each way and the same: {told[5:]}", flush=True)
