"""One measurement of scripts/bench: wrk asks a server for some seconds, and the processor time that the server's processes
used meanwhile is divided by the requests.
"""

import re
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

from benchmark.processes import LOAD_CORE

SCRIPTS = {
    "pipeline.lua": """
init = function(args)
  local requests = {}
  for i = 1, 16 do requests[i] = wrk.format("GET", wrk.path) end
  batch = table.concat(requests)
end
request = function() return batch end
""",
    # The octets, because responses that are under way at the end are no requests yet, but have cost their part.
    "octets.lua": """
done = function(summary) io.write("octets ", string.format("%d", summary.bytes), "\\n") end
""",
    # One of that many objects, each of which new.lua has asked for.
    "random.lua": """
local count = 1
init = function(args) count = tonumber(args[1]) end
request = function() return wrk.format("GET", wrk.path .. "/" .. math.random(count)) end
""",
    # From a number on, up to another, and then from 1 again.
    "new.lua": """
local number, most = 0, math.huge
init = function(args) number, most = tonumber(args[1]) or 0, tonumber(args[2]) or most end
request = function()
  number = number < most and number + 1 or 1
  return wrk.format("GET", wrk.path .. "/" .. number)
end
""",
}
OCTETS = ["-s", "octets.lua"]


@dataclass
class Row:
    label: str
    path: str
    connections: int = 32
    # Further ones of wrk.
    arguments: list = field(default_factory=list)
    # Of servers.COMMANDS.
    servers: list = field(default_factory=list)
    # What the bare server is asked for, if it is something else.
    bare: str = ""
    # Octets of a response whose cost is given for the gigabyte, too.
    length: int = 0
    # Every request goes to the origin.
    is_fetched: bool = False
    # Of each server, over both cores, which wrk then shares.
    workers: int = 1


@dataclass
class Sample:
    microseconds: float
    rate: float
    # What a server beside it has used.
    beside: float = 0


def load(server, row, seconds, directory, more=(), rest=False, beside=None, cores=LOAD_CORE):
    """A sample, how many requests there were, and what went wrong. `rest`: the server's work afterwards counts, too.
    `beside`: a server that this one asks."""
    path = row.bare if server.name == "bare" and row.bare else row.path
    taking_part = [server, beside] if beside else [server]
    before = [each.processor_time() for each in taking_part]
    report = subprocess.run(
        ["taskset", "-c", cores, "wrk", f"-t{len(cores.split(','))}", f"-c{row.connections}", f"-d{seconds}s", "--timeout=30s", *row.arguments,
         f"http://127.0.0.1:{server.port}{path}", "--", *map(str, more)],
        capture_output=True, text=True, cwd=directory, check=True,
    ).stdout  # fmt: skip
    if rest:
        server.wait_until_quiet()
    used = [each.processor_time() - since for each, since in zip(taking_part, before)]
    requests = int(re.search(r"(\d+) requests in", report).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", report).group(1))
    trouble = re.findall(r"(Socket errors:.*|Non-2xx.*)", report)
    responses = requests
    if row.length:
        responses = int(re.search(r"octets (\d+)", report).group(1)) / row.length
        rate = responses / seconds
    if responses == 0:
        return None, 0, ["no requests"]
    microseconds = [each * 1e6 / responses for each in used]
    return Sample(microseconds[0], rate, sum(microseconds[1:])), requests, trouble


def median(samples):
    if not samples:
        return None
    return Sample(
        statistics.median(sample.microseconds for sample in samples),
        statistics.median(sample.rate for sample in samples),
        statistics.median(sample.beside for sample in samples),
    )


def say(text):
    print(text, file=sys.stderr, flush=True)


def tell(row, number, rounds, name, sample, trouble):
    note = f"  ({'; '.join(trouble)})" if trouble else ""
    shown = "-" if sample is None else f"{sample.microseconds:10.2f} µs"
    beside = f" + {sample.beside:.2f}" if sample and sample.beside else ""
    rate = 0 if sample is None else sample.rate
    say(f"  {row} {number + 1}/{rounds}  {name:22} {shown}{beside} {rate:10.0f}/s{note}")
