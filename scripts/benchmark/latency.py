"""The row `latency`: how long a hit takes while all servers are asked at the same rate, half of the most that nginx can do.

Each time counts from when the request was due. A round of each server is one sample; what is shown is the median of
the rounds, for each of p50, p99 and p99.9.
"""

import statistics

from benchmark.load import load, say
from benchmark.pace import QUANTITIES, pace, shown
from benchmark.requests import ROWS
from benchmark.results import Figure, Line

SERVERS = ["bare", "baton", "nginx", "haproxy"]
CONNECTIONS = 32


def measure(run, name):
    row = ROWS["hit"]
    if not run.takes_part(SERVERS):
        return []
    with run.together(SERVERS) as servers:
        for server in servers:
            server.get(row.path)
        # Only where nginx is left out does another one say what the rate is.
        yardstick = next((server for server in servers if server.name == "nginx"), servers[-1])
        sample, _, _ = load(yardstick, row, run.seconds, run.directory)
        rate = int(sample.rate / 2)
        say(f"  {name}  {yardstick.name} can do {sample.rate:.0f}/s")
        rounds = {server.name: [] for server in servers}
        for number in range(run.rounds):
            for server in servers:
                times = pace(run, server, row.path, CONNECTIONS, rate, run.seconds)
                rounds[server.name].append(times)
                say(f"  {name} {number + 1}/{run.rounds}  {server.name:22} {shown(times)}")
    label = f"latency of a hit at {rate / 1000:.1f} k/s, p50 / p99 / p99.9"
    return [Line(name, label, {server: figure(times) for server, times in rounds.items()})]


def figure(rounds):
    times = {name: statistics.median(times[name] for times in rounds) for name in QUANTITIES}
    return Figure(times["p99"], shown(times), times)
