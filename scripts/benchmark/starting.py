"""The row `start`: from exec to the first hit, in a directory with 100,000 objects (with --full a million)."""

import statistics
import time

from benchmark.load import load, say
from benchmark.requests import STORE_ROWS
from benchmark.results import Figure, Line
from benchmark.servers import start, start_origin

SERVERS = ["baton", "nginx", "squid"]
OBJECTS, MANY_OBJECTS = 100_000, 1_000_000


def measure(run, name):
    objects = MANY_OBJECTS if run.is_full else OBJECTS
    figures = {}
    for server in run.takes_part(SERVERS):
        seconds = median_start(run, name, server, objects)
        figures[server] = Figure(seconds, f"{seconds:.3f} s")
    return [Line(name, f"start to first hit, {objects:,} objects", figures)]


def median_start(run, row, name, objects):
    """The origin is gone by then: what is answered is a hit."""
    place = run.new_directory()
    origin = start_origin(run.binaries, place)
    server = start(name, run.binaries, place, origin.port)
    fill(run, row, server, objects)
    server.wait_until_quiet()
    origin.stop()
    server.stop()
    times = []
    for number in range(run.rounds):
        before = time.monotonic()
        server = start(name, run.binaries, place, origin.port, server.port, probe=f"/1k/{100 + number}")
        times.append(time.monotonic() - before)
        server.stop()
        say(f"  {row} {number + 1}/{run.rounds}  {name:22} {times[-1]:8.3f} s")
    return statistics.median(times)


def fill(run, row, server, objects, begin=0):
    """/1k/N for each N up to `objects`, and no others."""
    count = begin
    while count < objects:
        # Those under way at the end have taken numbers, too: some are asked for twice.
        _, requests, trouble = load(server, STORE_ROWS["store-1k"], 3, run.directory, more=[count, objects])
        count += requests
        say(f"  {row}  {server.name:22} {min(count, objects):,} objects {'; '.join(trouble)}")
