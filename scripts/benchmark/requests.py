"""The rows in which wrk asks and processor time a request counts: hits, what is fetched, what is stored."""

from benchmark.disk import claim_memory
from benchmark.load import OCTETS, Row, load, median, tell
from benchmark.processes import BOTH_CORES, LOAD_CORE, SERVER_CORE
from benchmark.results import Figure, Line, column, rate

KIB, MIB = 1 << 10, 1 << 20

MEMORY = ["bare", "baton", "before", "nginx", "nginx, log", "haproxy"]
DISK = ["bare", "baton, no memory tier", "nginx", "nginx, log"]
PASS = ["bare", "baton", "before", "nginx", "haproxy"]
STORE = ["baton", "before", "nginx", "nginx, log"]
WORKERS = ["baton", "nginx", "haproxy"]

ROWS = {
    "hit": Row("hit, 1 KiB, keep-alive", "/1k", servers=MEMORY),
    "pipelined": Row("hit, 1 KiB, 16 pipelined", "/1k", arguments=["-s", "pipeline.lua"], servers=MEMORY),
    "close": Row("hit, 1 KiB, new connection each", "/1k", arguments=["-H", "Connection: close"], servers=MEMORY),
    "uncached": Row("not cached, 1 KiB, keep-alive", "/no-store/1k", servers=MEMORY, is_fetched=True),
    "pass": Row("not cached, 1 MiB", "/no-store/1m", 16, OCTETS, PASS, length=MIB, is_fetched=True),
    "large": Row("hit, 1 MiB, keep-alive", "/1m", 16, OCTETS, MEMORY, length=MIB),
    "disk-1k": Row("hit from disk, 1 KiB", "/1k/disk", servers=DISK),
    "disk-64k": Row("hit from disk, 64 KiB", "/64k", 32, OCTETS, DISK, "/file/64k", 64 * KIB),
    "disk-1m": Row("hit from disk, 1 MiB", "/1m", 16, OCTETS, DISK, "/file/1m", MIB),
    "disk-100m": Row("hit from disk, 100 MiB", "/100m", 4, OCTETS, DISK, "/file/100m", 100 * MIB),
    "workers": Row("hit, 1 KiB, two workers, 100 connections", "/1k", 100, servers=WORKERS, workers=2),
}
STORE_ROWS = {
    "store-1k": Row("miss, stored, 1 KiB", "/1k", arguments=["-s", "new.lua"], servers=STORE),
    "store-64k": Row("miss, stored, 64 KiB", "/64k", arguments=["-s", "new.lua"], servers=STORE),
}


def measure(run, name):
    """In turns within each round, so that what else the machine does meets all of them."""
    row = ROWS[name]
    cores = SERVER_CORE if row.workers == 1 else BOTH_CORES
    with run.together(row.servers, row.workers, cores) as servers:
        samples = {server.name: [] for server in servers}
        for server in servers:
            # A small cache may want to see a URL more often than once.
            for _ in range(3):
                server.get(row.path)
        for number in range(run.rounds):
            for server in servers:
                sample = measure_once(run, name, row, server, number)
                if sample:
                    samples[server.name].append(sample)
    return [line(name, row, samples)]


def measure_once(run, name, row, server, number):
    before = run.origin.processor_time()
    cores = LOAD_CORE if row.workers == 1 else BOTH_CORES
    sample, _, trouble = load(server, row, run.seconds, run.directory, cores=cores)
    if not row.is_fetched and run.origin.processor_time() - before > 0.05 * run.seconds:
        trouble.append("these were no hits: the origin was busy")
    tell(name, number, run.rounds, server.name, sample, trouble)
    return sample


def measure_storing(run, name):
    """The same with a fresh server and a fresh directory for each measurement."""
    row = STORE_ROWS[name]
    samples = {server: [] for server in run.takes_part(row.servers)}
    for number in range(run.rounds):
        for server_name, values in samples.items():
            with run.fresh(server_name) as server:
                claim_memory(run.seconds)
                sample, _, trouble = load(server, row, run.seconds, run.directory, rest=True)
            tell(name, number, run.rounds, server_name, sample, trouble)
            if sample:
                values.append(sample)
    return [line(name, row, samples)]


def line(name, row, samples):
    figures = {column(server): figure(row, median(values)) for server, values in samples.items() if values}
    return Line(name, row.label, figures)


def figure(row, sample):
    more = {"rate": sample.rate, "requests a CPU second": 1e6 / max(sample.microseconds, 1e-3)}
    time = f"{sample.microseconds:.{2 if sample.microseconds < 1000 else 0}f} µs"
    if row.length:
        time += f", {sample.microseconds / 1e6 / row.length * 1e9:.3f} s/GB"
    elif row.workers > 1:
        time += f", {1 / sample.microseconds * 1000:.0f} k a CPU second"
    return Figure(sample.microseconds, f"{time} ({rate(sample.rate)})", more)
