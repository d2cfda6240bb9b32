"""What is wanted of baton in each row: what must be, and what is aimed at.

nginx here is nginx without its access log, though baton writes one: the harder comparison.
"""

from dataclasses import dataclass

from benchmark.results import PEERS

MARKS = {True: "✓", False: "✗", None: "?"}


@dataclass
class Target:
    limit: float
    # Whose figure is the measure: a column, "peer" for the better of all peers; "": the limit is a figure itself.
    of: str = ""
    # What it is about, by its name in Figure.more.
    quantity: str = "cost"
    # More is better: the limit is the least.
    is_least: bool = False
    unit: str = ""

    def is_met(self, line):
        """None: it was not measured."""
        value = self.value(line)
        if value is None:
            return None
        return value >= self.limit if self.is_least else value <= self.limit

    def value(self, line):
        ours = line.ours()
        if ours is None:
            return None
        if not self.of:
            return ours.quantity(self.quantity)
        names = PEERS if self.of == "peer" else [self.of]
        theirs = [line.figures[name].quantity(self.quantity) for name in names if name in line.figures]
        if not theirs:
            return None
        best = max(theirs) if self.is_least else min(theirs)
        return ours.quantity(self.quantity) / best if best > 0 else None

    def text(self, line):
        value = self.value(line)
        about = "" if self.quantity == "cost" else self.quantity + " "
        limit = f"{self.limit:g}{self.unit}" if not self.of else f"{self.limit:.2f} × {self.of}"
        is_so = "" if value is None else f" ({value:.2f})" if self.of else f" ({value:.3g})"
        return f"{MARKS[self.is_met(line)]} {about}{'≥' if self.is_least else '≤'} {limit}{is_so}"


def at_most(limit, of="", quantity="cost", unit=""):
    return Target(limit, of, quantity, unit=unit)


def at_least(limit, of, quantity):
    return Target(limit, of, quantity, is_least=True)


FROM_FILES = ([at_most(1.0, "nginx")], [at_most(1.1, "bare")])
STORING = ([at_most(1.0, "nginx")], [at_most(0.8, "nginx")])

# {line: (what must be, what is aimed at)}
TARGETS = {
    "hit": ([at_most(0.60, "nginx"), at_most(0.95, "haproxy")], [at_most(1.25, "bare")]),
    "pipelined": ([at_least(6, "nginx", "rate")], [at_least(10, "nginx", "rate")]),
    "close": ([at_most(0.90, "nginx")], [at_most(0.75, "nginx")]),
    "uncached": ([at_most(1.0, "haproxy")], [at_most(0.85, "haproxy")]),
    "store-1k": STORING,
    "store-64k": STORING,
    "disk-64k": FROM_FILES,
    "disk-1m": FROM_FILES,
    "disk-100m": FROM_FILES,
    "pass": ([at_most(1.0, "peer")], []),
    "tunnel": ([at_most(1.1, "haproxy")], [at_most(1.0, "haproxy")]),
    "idle": ([at_most(100, quantity="master", unit=" B"), at_most(0, quantity="workers", unit=" B")], []),
    "workers": ([at_least(1.5, "nginx", "requests a CPU second")], [at_least(1.75, "nginx", "requests a CPU second")]),
    "skew": ([], [at_most(0.5, "nginx", "p99")]),
    "latency": ([], [at_most(1.0, "peer", quantity) for quantity in ["p50", "p99", "p99.9"]]),
    "herd": ([at_most(1, quantity="origin requests"), at_most(1.1, quantity="last : alone")], []),
    "start": ([at_most(1, unit=" s")], []),
    "memory-idle": ([at_most(1.0, "nginx")], []),
    "memory-after": ([at_most(1.0, "nginx")], []),
}


def shown(line, kind):
    """A cell of the table. `kind`: 0 must, 1 aim."""
    return "<br>".join(target.text(line) for target in TARGETS.get(line.name, ([], []))[kind]) or "-"
