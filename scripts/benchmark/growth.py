"""`scripts/bench --growth`: what a request costs with 1, 100 and 10,000 connections, and with 100, 10,000 and a million objects.

Objects are of 1 KiB each and asked for at random. For hits from memory the tier is made large enough for all of them;
the others are read from the directory. nginx keeps nothing in memory but names, so it has one line.
"""

from dataclasses import replace

from benchmark.chart import panels
from benchmark.load import Row, load, median, tell
from benchmark.requests import ROWS
from benchmark.results import column
from benchmark.starting import fill
from benchmark.table import markdown

CONNECTIONS = [1, 100, 10_000]
# Seconds that a measurement takes at the least with the most of them: opening them takes one.
PATIENCE = 4
HOT, DISK = ["bare", "baton, many", "nginx, many"], ["bare", "baton, many, no memory tier", "nginx, many"]
OVER_CONNECTIONS = {"hit": HOT, "close": HOT, "uncached": HOT, "disk-64k": DISK}
OBJECTS = [100, 10_000, 1_000_000]
OVER_OBJECTS = {"hit": ["bare", "baton, much memory", "nginx"], "disk-1k": ["bare", "baton, no memory tier", "nginx"]}
NAMES = list(dict.fromkeys([*OVER_CONNECTIONS, *OVER_OBJECTS]))
TITLE = "Processor time a request, in µs"


def measure(run, rows):
    """(row, what is across, {server: {x: microseconds}}) of each"""
    kinds = [("connections", over_connections, OVER_CONNECTIONS), ("objects", over_objects, OVER_OBJECTS)]
    return [
        (name, across, measure_one(run, name, servers))
        for across, measure_one, names in kinds
        for name, servers in names.items()
        if name in rows and run.takes_part(servers)
    ]


def over_connections(run, name, names):
    row = ROWS[name]
    with run.together(names) as servers:
        for server in servers:
            for _ in range(3):
                server.get(row.path)
        found = in_turns(run, name, servers, CONNECTIONS, lambda count: (replace(row, connections=count), []))
    return {column(server): values for server, values in found.items()}


def over_objects(run, name, names):
    found = {}
    for server_name in run.takes_part(names):
        with run.fresh(server_name) as server:
            values, there = {}, 0
            for count in OBJECTS[:-1] if run.is_quick else OBJECTS:
                if server_name != "bare":
                    fill(run, name, server, count, there)
                    server.wait_until_quiet()
                there = count
                row = Row("", "/1k", arguments=["-s", "random.lua"])
                values |= in_turns(run, name, [server], [count], lambda count: (row, [count]))[server_name]
            found[column(server_name)] = values
    return found


def in_turns(run, name, servers, counts, choose):
    """{server: {count: median microseconds}}. `choose`: the row and the arguments of wrk's script for a count."""
    found = {server.name: {} for server in servers}
    for count in counts:
        row, more = choose(count)
        seconds = max(run.seconds, PATIENCE) if row.connections == CONNECTIONS[-1] else run.seconds
        samples = {server.name: [] for server in servers}
        for number in range(run.rounds):
            for server in servers:
                sample, _, trouble = load(server, row, seconds, run.directory, more)
                tell(f"{name} × {count:,}", number, run.rounds, server.name, sample, trouble)
                if sample:
                    samples[server.name].append(sample)
        for server_name, values in samples.items():
            if values:
                found[server_name][count] = median(values).microseconds
    return found


def table(found):
    cells = [["row", "over", "server", *(f"{count:,}" for count in sorted({*CONNECTIONS, *OBJECTS}))]]
    for name, across, series in found:
        for server, values in series.items():
            counts = (values.get(count) for count in sorted({*CONNECTIONS, *OBJECTS}))
            cells.append([f"`{name}`", across, server, *("-" if value is None else f"{value:.1f} µs" for value in counts)])
    return markdown(cells)


def chart(found):
    return panels(TITLE, [(f"{name}, by {across}", across, series) for name, across, series in found])
