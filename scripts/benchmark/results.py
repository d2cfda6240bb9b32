"""What a measurement gives: lines of the one table, and in each line a figure for each server."""

from dataclasses import dataclass, field


@dataclass
class Figure:
    # The less the better; ratios and bars are of this.
    cost: float
    # What the table shows.
    text: str
    # Further quantities that a target may be about, by name.
    more: dict = field(default_factory=dict)

    def quantity(self, name):
        return self.more[name] if name in self.more else self.cost


@dataclass
class Line:
    # Of its targets; most often that of its row.
    name: str
    label: str
    # {column: Figure}, in any order.
    figures: dict

    def ours(self):
        return self.figures.get("baton")

    def ratio(self, rival):
        """Our cost in terms of theirs, if both are known."""
        ours, theirs = self.ours(), self.figures.get(rival)
        if ours is None or theirs is None or theirs.cost <= 0:
            return None
        return max(ours.cost, 0) / theirs.cost


# In the order of the table.
COLUMNS = ["baton", "before", "bare", "nginx", "nginx, log", "haproxy", "varnish", "squid"]
RIVALS = COLUMNS[1:]
# Those that "the better peer" may be.
PEERS = ["nginx", "haproxy", "varnish", "squid"]


def column(server):
    """Where a server of servers.COMMANDS stands: variants that a row has chosen are in the column of their kind."""
    return server if server in COLUMNS else server.partition(",")[0]


def columns_of(lines):
    return [name for name in COLUMNS if any(name in line.figures for line in lines)]


def rate(requests):
    return f"{requests / 1000:.1f} k/s" if requests >= 1000 else f"{requests:.0f}/s"


def octets(count):
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count:.0f} B"
