"""A network for the run alone, with the congestion control that Linux has where nobody has chosen another.

With BBR, which paces what it sends by timers, a MiB over the loopback costs four times as much as with CUBIC, and the
same row twice differs by half: that is neither a proxy's doing nor what most machines have.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

from benchmark.load import say

USUAL = "cubic"
CHOSEN = Path("/proc/sys/net/ipv4/tcp_congestion_control")
CLONE_NEWNET = 0x4000_0000


def enter():
    """What this process starts from now on has a loopback of its own. Returns the congestion control that holds there, or in
    the network that there was where this is not for us to do (who is not root, a system without `ip`)."""
    chosen = CHOSEN.read_text().strip()
    if os.getuid() != 0 or not shutil.which("ip"):
        say(f"in the network of the machine, with {chosen}: {'no ip (iproute2)' if os.getuid() == 0 else 'not root'}")
        return chosen
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        say(f"in the network of the machine, with {chosen}: {os.strerror(ctypes.get_errno())}")
        return chosen
    run = lambda command: subprocess.run(command.split(), check=True, capture_output=True)  # noqa: E731
    run("ip link set lo up")
    if chosen == USUAL:
        return chosen
    try:
        # A network of its own may not choose what the machine does not offer to all; a route may.
        for whose in ["127.0.0.0/8", "127.0.0.1"]:
            run(f"ip route replace local {whose} dev lo table local proto kernel scope host src 127.0.0.1 congctl {USUAL}")
    except subprocess.CalledProcessError as error:
        say(f"with {chosen}: {error.stderr.decode().strip()}")
        return chosen
    return USUAL
