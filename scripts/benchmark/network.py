"""A network for the run alone, with the congestion control that Linux has where nobody has chosen another.

With BBR, which paces what it sends by timers, a MiB over the loopback costs four times as much as with CUBIC, and the
same row twice differs by half: that is neither a proxy's doing nor what most machines have.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmark.load import say

USUAL = "cubic"
CHOSEN = Path("/proc/sys/net/ipv4/tcp_congestion_control")
OFFERED = CHOSEN.with_name("tcp_available_congestion_control")
CLONE_NEWNET = 0x4000_0000


def enter():
    """What this process starts from now on has a loopback of its own. Returns the congestion control that holds there, or in
    the network that there was where this is not for us to do (who is not root, a system without `ip`)."""
    refused = None
    if os.getuid() != 0:
        refused = "not root"
    elif not shutil.which("ip"):
        refused = "no ip (iproute2)"
    elif ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        refused = os.strerror(ctypes.get_errno())
    if refused:
        say(f"in the network of the machine, with {chosen()}: {refused}")
        return chosen()
    configure("ip link set lo up")
    # It has begun with what the machine chose at its start, which is not what we were in.
    if chosen() != USUAL:
        if USUAL not in OFFERED.read_text().split():
            return chosen()
        # A network of its own may not choose what the machine does not offer to all; a route may.
        for whose in ["127.0.0.0/8", "127.0.0.1"]:
            configure(f"ip route replace local {whose} dev lo table local proto kernel scope host src 127.0.0.1 congctl {USUAL}")
    return USUAL


def chosen():
    return CHOSEN.read_text().strip()


def configure(command):
    """Half of it done is neither one network nor the other: there is no run then."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr.strip()}")
