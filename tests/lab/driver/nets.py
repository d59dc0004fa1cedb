"""Networks: how fast a stock guest and its host talk, over a tap and through passt."""

from console import Failed
from monitors import CarawayGuest
from slots import PATIENCE

SECONDS = 5
TAP_MAC, USER_MAC, LATE_MAC = "52:54:00:0a:09:02", "52:54:00:0a:00:02", "52:54:00:0a:09:03"
TAP_HOST, TAP_GUEST = "10.9.0.1", "10.9.0.2"
LATE_HOST, LATE_GUEST = "10.9.1.1", "10.9.1.2"
# The gateway of L1, which passt gives to the guest as its own; connections to it lead to L1's loopback.
GATEWAY = "10.0.2.2"
# One that leads to the guest.
FORWARDED = 5300

CONFIG = {
    "nets": [
        {"id": "lan", "tap": "tap0", "mac": TAP_MAC},
        {
            "id": "user",
            "mac": USER_MAC,
            "user": {"host_access": True, "forwards": [{"host": f"127.0.0.1:{FORWARDED}", "guest": FORWARDED}]},
        },
    ],
    "hotplug": {"slots": 1},
}
PREPARE = f"""
module tun
ip tuntap add tap0 mode tap
ip addr add {TAP_HOST}/24 dev tap0
ip link set tap0 up
ip tuntap add tap1 mode tap
ip addr add {LATE_HOST}/24 dev tap1
ip link set tap1 up
ip route add default via {GATEWAY}
"""


def talks_through_a_tap(guest: CarawayGuest) -> None:
    card = name_of(guest, TAP_MAC)
    guest.serial.run(f"ip addr add {TAP_GUEST}/24 dev {card} && ip link set {card} up")
    serve(guest, TAP_HOST)
    print(f"# iperf3 through a tap: {both_ways(guest, TAP_HOST)}", flush=True)


def talks_through_passt(guest: CarawayGuest) -> None:
    """With the address that passt offers by DHCP; and through a forward, from the host to the guest."""
    wish = f"[Match]\\nMACAddress={USER_MAC}\\n[Network]\\nDHCP=ipv4\\n"
    guest.serial.run(f"mkdir -p /run/systemd/network && printf '{wish}' >/run/systemd/network/user.network")
    guest.serial.run("systemctl start systemd-networkd", 120)
    card = name_of(guest, USER_MAC)
    guest.serial.wait_for(f"ip -4 route show default dev {card} | grep -q {GATEWAY}", 120)
    serve(guest, "127.0.0.1")
    told = both_ways(guest, GATEWAY)
    guest.serial.run(f"iperf3 --server --daemon --port {FORWARDED}")
    forwarded = received(guest.host(f"iperf3 --client 127.0.0.1 --port {FORWARDED} --time {SECONDS} --format m"))
    print(f"# iperf3 through passt: {told}, by a forward {forwarded:.0f} Mbit/s to the guest", flush=True)


def takes_a_card_and_lets_it_go(guest: CarawayGuest) -> None:
    """A card that comes to the running guest, by its own driver of PCI Express slots, and goes."""
    guest.put("net.add", {"id": "late", "tap": "tap1", "mac": LATE_MAC})
    guest.serial.wait_for(f"grep -qx {LATE_MAC} /sys/class/net/*/address", PATIENCE)
    guest.last_event("device.accepted")
    card = name_of(guest, LATE_MAC)
    guest.serial.run(f"ip addr add {LATE_GUEST}/24 dev {card} && ip link set {card} up")
    serve(guest, LATE_HOST)
    print(f"# iperf3 through a card that came late: {both_ways(guest, LATE_HOST)}", flush=True)
    guest.put("net.remove", {"id": "late"})
    guest.serial.wait_for(f"! grep -qx {LATE_MAC} /sys/class/net/*/address", PATIENCE)
    guest.last_event("device.removed")


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
