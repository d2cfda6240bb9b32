"""The rows pg-* of scripts/bench: baton over PostgreSQL, beside the same query alone, the disk store and nginx.

They have tables of their own. PostgreSQL is part of the server under load: it has core 0 together with baton, and its
processor time, of all its processes, is given separately. *The query alone* is benches/query.rs: the statements that a
hit runs, over as many sessions as a worker reads by, as many at once as wrk has connections; once in baton's place on
core 0, and once in wrk's on core 1, which leaves core 0 to PostgreSQL.
"""

import random
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmark.database import Database
from benchmark.disk import claim_memory
from benchmark.load import OCTETS, Row, Sample, load, median, say, tell
from benchmark.processes import LOAD_CORE, SERVER_CORE

WITHOUT_MEMORY = ["--set", "cache.memory=0"]
MIB = 1 << 20
HITS = {
    "pg-1k": Row("1 KiB", "/1k"),
    "pg-64k": Row("64 KiB", "/64k"),
    "pg-1m": Row("1 MiB", "/1m", 16, OCTETS, length=MIB),
    "pg-100m": Row("100 MiB", "/100m", 4, OCTETS, length=100 * MIB),
}
STORES = {
    "pg-store-1k": Row("1 KiB", "/1k", arguments=["-s", "new.lua"]),
    "pg-store-1m": Row("1 MiB", "/1m", 16, ["-s", "new.lua"]),
}
ROWS = [*HITS, *STORES, "pg-objects"]
COUNTS = [1_000, 10_000, 100_000, 1_000_000]
# Hits that a round times, each of an object at random.
TIMED = 2_000

OURS, OURS_HOT = "baton, PostgreSQL", "baton, PostgreSQL, memory"
# Another build, given by --against.
BEFORE, BEFORE_HOT = "before, PostgreSQL", "before, PostgreSQL, memory"
OVER_DATABASE = [OURS, OURS_HOT, BEFORE, BEFORE_HOT]
ALONE, APART = "query alone", "query from core 1"
DISK, DISK_HOT, NGINX = "baton, no memory tier", "baton", "nginx"


# === hits


def key(server, path):
    """What baton calls a response."""
    return f"reverse http://127.0.0.1:{server.port}{path}"


def get_until_stored(database, server, path, schema):
    count = f"SELECT count(*) FROM baton_objects WHERE key = '{key(server, path)}'"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        server.get(path)
        if database.sql(count, schema) == "1":
            return
    sys.exit(f"{server.name} does not store {path}")


class Query:
    """benches/query.rs on one core, connected, with a query at the ready."""

    def __init__(self, run, core, database, schema, name, row):
        self.database = database
        self.process = subprocess.Popen(
            ["taskset", "-c", core, run.binaries["query"], "run", database.url(schema), name, str(row.connections), str(run.seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self.process.stdout.readline() != "ready\n":
            sys.exit("benches/query.rs has failed")

    def measure(self):
        before = self.database.processor_time()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        beside = self.database.processor_time() - before
        hits, took, used = (float(words[place]) for place in [0, 2, 4])
        return Sample(used * 1e6 / hits, hits / took, beside * 1e6 / hits)

    def close(self):
        self.process.communicate("\n")


def measure_hits(run, name, servers, database):
    """{name: median sample or None}. In turns, as in the other rows."""
    row = HITS[name]
    if row.length > 10 * MIB:
        # Never in memory: nothing to compare.
        servers = [server for server in servers if server.name not in [OURS_HOT, BEFORE_HOT, DISK_HOT]]
    samples = {server.name: [] for server in servers} | {ALONE: [], APART: []}
    for server in servers:
        if server.name in OVER_DATABASE:
            get_until_stored(database, server, row.path, "hits")
        for _ in range(3):
            server.get(row.path)
    ours = next(server for server in servers if server.name == OURS)
    for number in range(run.rounds):
        for server in servers:
            before = run.origin.processor_time()
            beside = database if server.name in OVER_DATABASE else None
            sample, _, trouble = load(server, row, run.seconds, run.directory, beside=beside)
            if run.origin.processor_time() - before > 0.05 * run.seconds:
                trouble.append("these were no hits: the origin was busy")
            tell(name, number, run.rounds, server.name, sample, trouble)
            if sample:
                samples[server.name].append(sample)
        for alone, core in [(ALONE, SERVER_CORE), (APART, LOAD_CORE)]:
            query = Query(run, core, database, "hits", key(ours, row.path), row)
            samples[alone].append(query.measure())
            query.close()
            tell(name, number, run.rounds, alone, samples[alone][-1], [])
    return {name: median(values) for name, values in samples.items()}


# === storing


def measure_storing(run, name, database):
    """{name: median sample or None}"""
    row = STORES[name]
    samples = {server: [] for server in [OURS, *beside_ours(run, [BEFORE], [DISK_HOT, NGINX])]}
    for number in range(run.rounds):
        for server, values in samples.items():
            if server in OVER_DATABASE:
                sample, trouble = store_in(run, database, name, server, number)
            else:
                with run.fresh(server) as running:
                    claim_memory(run.seconds)
                    sample, _, trouble = load(running, row, run.seconds, run.directory, rest=True)
            tell(name, number, run.rounds, server, sample, trouble)
            if sample:
                values.append(sample)
    return {name: median(values) for name, values in samples.items()}


def store_in(run, database, name, ours, number):
    """In fresh tables; that they are vacuumed in the end counts."""
    binary = "before" if ours == BEFORE else "baton"
    row, schema = STORES[name], f"{name.removeprefix('pg-').replace('-', '_')}_{binary}_{number}"
    server = database.start_baton(ours, run, schema, binary=binary)
    get_until_stored(database, server, "/1k", schema)
    claim_memory(run.seconds)
    sample, requests, trouble = load(server, row, run.seconds, run.directory, rest=True, beside=database)
    before = database.processor_time()
    database.sql("VACUUM (ANALYZE) baton_objects, baton_pieces", schema)
    if sample:
        sample.beside += (database.processor_time() - before) * 1e6 / requests
    stored = int(database.sql("SELECT count(*) FROM baton_objects", schema))
    if stored < requests:
        trouble.append(f"{stored} of {requests} stored")
    server.stop()
    database.sql(f"DROP SCHEMA {schema} CASCADE")
    return sample, trouble


# === many objects


@dataclass
class Latency:
    median: float
    worst_of_99: float


def measure_objects(run, database):
    """{number of objects: Latency}. All but one are copied in the database."""
    server = database.start_baton(OURS, run, "many", WITHOUT_MEMORY)
    get_until_stored(database, server, "/1k", "many")
    found, there = {}, 0
    for count in COUNTS:
        before = time.monotonic()
        subprocess.run(
            ["taskset", "-c", LOAD_CORE, run.binaries["query"], "fill", database.url("many"), key(server, "/1k"), str(there), str(count)],
            check=True,
        )  # fmt: skip
        database.sql("VACUUM (ANALYZE) baton_objects", "many")
        there = count
        say(f"  pg-objects  {count:,} objects after {time.monotonic() - before:.1f} s")
        times = time_hits(server.port, count, run.rounds * TIMED)
        found[count] = Latency(statistics.median(times), statistics.quantiles(times, n=100)[-1])
        say(f"  pg-objects  {count:,} objects: {found[count].median:.0f} µs, p99 {found[count].worst_of_99:.0f} µs")
    server.stop()
    database.sql("DROP SCHEMA many CASCADE")
    return found


def time_hits(port, count, times):
    """Microseconds of each: from the request until all of the answer is there, one after the other on one connection."""
    choose, took = random.Random(count), []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        for _ in range(times):
            request = f"GET /1k/{choose.randrange(count)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
            began = time.perf_counter()
            client.sendall(request)
            answer = client.recv(1 << 16)
            while not is_whole(answer):
                answer += client.recv(1 << 16)
            took.append((time.perf_counter() - began) * 1e6)
            if b"; hit" not in answer:
                sys.exit(f"no hit: {answer[:500]}")
    return took


def is_whole(answer):
    head, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and len(body) == 1024


# === the whole


def beside_ours(run, before, others):
    """Of these servers, those that take part."""
    return [*(before if "before" in run.binaries else []), *run.takes_part(others)]


def start(run, database, name):
    binary = "before" if name in [BEFORE, BEFORE_HOT] else "baton"
    if name in OVER_DATABASE:
        return database.start_baton(name, run, "hits", WITHOUT_MEMORY if name in [OURS, BEFORE] else (), binary)
    return run.start(name, run.directory)


def measure(run, chosen):
    """{row: what was measured}"""
    say("PostgreSQL")
    database = Database(run.directory)
    measured = {"version": database.sql("SHOW server_version").split()[0]}
    if any(row in HITS for row in chosen):
        names = beside_ours(run, [BEFORE, BEFORE_HOT], [DISK, DISK_HOT, NGINX])
        servers = [start(run, database, name) for name in [OURS, OURS_HOT, *names]]
        for row in chosen:
            if row in HITS:
                measured[row] = measure_hits(run, row, servers, database)
        for server in servers:
            server.stop()
    for row in chosen:
        if row in STORES:
            measured[row] = measure_storing(run, row, database)
    if "pg-objects" in chosen:
        measured["pg-objects"] = measure_objects(run, database)
    return measured


# === reporting


def cell(sample):
    if sample is None:
        return "-"
    rate = f"{sample.rate / 1000:.1f} k/s" if sample.rate >= 1000 else f"{sample.rate:.{0 if sample.rate >= 10 else 1}f}/s"
    beside = f" + {sample.beside:.1f}" if sample.beside else ""
    return f"{sample.microseconds:.1f}{beside} µs ({rate})"


def columns(rows, names):
    """Of these servers, those that were measured."""
    return [name for name in names if all(name in samples for samples in rows.values())]


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if theirs else "-"


def markdown(lines):
    lines.insert(1, ["---"] + ["--:"] * (len(lines[0]) - 1))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def total(sample):
    return sample.microseconds + sample.beside


def hits_table(rows):
    names = columns(rows, [OURS, BEFORE, ALONE, APART, DISK, NGINX])
    lines = [["hit, memory tier off", *names, "baton adds", "rate : alone", "rate : from core 1"]]
    for name, samples in rows.items():
        ours, alone, apart = samples[OURS], samples[ALONE], samples[APART]
        lines.append([
            HITS[name].label, *(cell(samples[name]) for name in names), f"{total(ours) - total(alone):.1f} µs",
            ratio(ours.rate, alone.rate), ratio(ours.rate, apart.rate),
        ])  # fmt: skip
    return markdown(lines)


def hot_table(rows):
    rows = {name: samples for name, samples in rows.items() if samples.get(OURS_HOT)}
    names = columns(rows, [OURS_HOT, BEFORE_HOT, DISK_HOT, NGINX])
    lines = [["hit, memory tier on", *names, "PostgreSQL : disk store"]]
    for name, samples in rows.items():
        lines.append([HITS[name].label, *(cell(samples[name]) for name in names), cost_ratio(samples, OURS_HOT, DISK_HOT)])
    return markdown(lines) if rows else ""


def cost_ratio(samples, ours, theirs):
    theirs = samples.get(theirs)
    return ratio(samples[ours].microseconds, theirs.microseconds) if theirs else "-"


def stores_table(rows):
    names = columns(rows, [OURS, BEFORE, DISK_HOT, NGINX])
    lines = [["miss, stored", *names, "baton : nginx", "with PostgreSQL : nginx"]]
    for name, samples in rows.items():
        nginx = samples.get(NGINX)
        lines.append([
            STORES[name].label, *(cell(samples[server]) for server in names), cost_ratio(samples, OURS, NGINX),
            ratio(total(samples[OURS]), nginx.microseconds) if nginx else "-",
        ])  # fmt: skip
    return markdown(lines)


def objects_table(found):
    lines = [["objects in PostgreSQL", "a hit, median", "99 of 100 within"]]
    for count, latency in found.items():
        lines.append([f"{count:,}", f"{latency.median:.0f} µs", f"{latency.worst_of_99:.0f} µs"])
    return markdown(lines)


def tables(measured, rounds, seconds):
    hits = {name: samples for name, samples in measured.items() if name in HITS}
    stores = {name: samples for name, samples in measured.items() if name in STORES}
    parts = [hits_table(hits), hot_table(hits)] if hits else []
    if stores:
        parts.append(stores_table(stores))
    if "pg-objects" in measured:
        parts.append(objects_table(measured["pg-objects"]))
    parts.append(
        "Processor time a request: all processes of the server + all of PostgreSQL's (requests a second); both on one core, except where the"
        f" query is asked from core 1. Median of {rounds} rounds of {seconds} s; PostgreSQL {measured['version']}."
    )
    return "\n\n".join(part for part in parts if part)
