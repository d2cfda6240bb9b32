"""Latencies at a rate that does not wait for answers: benches/pace.rs on the load core."""

import re
import subprocess
import sys

from benchmark.processes import LOAD_CORE

QUANTITIES = ["p50", "p99", "p99.9"]


def pace(run, server, path, connections, rate, seconds):
    """{p50, p99, p99.9: microseconds}"""
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, run.binaries["pace"], f"127.0.0.1:{server.port}", path, str(connections), str(rate), str(seconds)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{server.name}: {done.stderr}")
    return {name: float(re.search(rf" {re.escape(name)} ([\d.]+)", done.stdout).group(1)) for name in QUANTITIES}


def shown(times):
    """As "85 / 210 / 900 µs"."""
    return " / ".join(f"{times[name]:.0f}" for name in QUANTITIES) + " µs"
