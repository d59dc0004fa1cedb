"""Networks: how fast a stock guest and its host talk, over a tap."""

from console import Failed
from monitors import CarawayGuest

SECONDS = 5
TAP_MAC = "52:54:00:0a:09:02"
TAP_HOST, TAP_GUEST = "10.9.0.1", "10.9.0.2"

CONFIG = {"nets": [{"id": "lan", "tap": "tap0", "mac": TAP_MAC}]}
PREPARE = f"""
module tun
ip tuntap add tap0 mode tap
ip addr add {TAP_HOST}/24 dev tap0
ip link set tap0 up
"""


def talks_through_a_tap(guest: CarawayGuest) -> None:
    card = name_of(guest, TAP_MAC)
    guest.serial.run(f"ip addr add {TAP_GUEST}/24 dev {card} && ip link set {card} up")
    serve(guest, TAP_HOST)
    print(f"# iperf3 through a tap: {both_ways(guest, TAP_HOST)}", flush=True)


def name_of(guest: CarawayGuest, mac: str) -> str:
    return guest.serial.run(f"grep -lx {mac} /sys/class/net/*/address | cut -d/ -f5")


def serve(guest: CarawayGuest, address: str) -> None:
    guest.host(f"iperf3 --server --daemon --bind {address}")


def both_ways(guest: CarawayGuest, host: str) -> str:
    # The server may still be starting, and a card take a moment.
    guest.serial.wait_for(f"iperf3 --client {host} --bytes 1K --connect-timeout 5000 >/dev/null 2>&1", 60)
    speeds = []
    for way, options in (("host", ""), ("guest", "--reverse")):
        told = guest.serial.run(f"iperf3 --client {host} --time {SECONDS} --format m {options} | tail -n 5", 120)
        speeds.append(f"{received(told):.0f} Mbit/s to the {way}")
    return ", ".join(speeds)


def received(told: str) -> float:
    """Mbit/s that arrived, by the receiver's count."""
    line = next((line for line in told.splitlines() if "receiver" in line), "")
    words = line.split()
    mbits = float(words[words.index("Mbits/sec") - 1]) if "Mbits/sec" in words else 0
    if mbits <= 0:
        raise Failed(f"nothing arrived: {told[-300:]}")
    return mbits
