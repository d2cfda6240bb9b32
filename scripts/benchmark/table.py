"""The one table as Markdown: a line a row, each server a column, then the ratios, then what is wanted."""

from benchmark import targets
from benchmark.results import PEERS, RIVALS, columns_of

LEGEND = """\
Costs are processor time a request, user and system time of all processes of a server (requests a second in brackets), unless
a row says otherwise. Below 1 in the ratios baton needs less; the best peer is bold. ✓ met, ✗ missed, ? not measured here."""


def markdown(cells):
    """`cells`: lines, the first of which is the head."""
    head, *rest = cells
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] + ["--:"] * (len(head) - 1), *rest])


def table(lines):
    names = columns_of(lines)
    rivals = [name for name in names if name in RIVALS]
    rows = [["row", *names, *(f": {name}" for name in rivals), "must", "aim"]]
    for line in lines:
        best = best_peer(line)
        rows.append([
            f"`{line.name}` {line.label}",
            *(cell(line, name, name == best) for name in names),
            *(ratio(line.ratio(name)) for name in rivals),
            targets.shown(line, 0),
            targets.shown(line, 1),
        ])  # fmt: skip
    return markdown(rows)


def best_peer(line):
    peers = [name for name in PEERS if name in line.figures]
    return min(peers, key=lambda name: line.figures[name].cost, default=None)


def cell(line, name, is_best):
    if name not in line.figures:
        return "-"
    text = line.figures[name].text
    return f"**{text}**" if is_best else text


def ratio(value):
    return "-" if value is None else f"{value:.2f}"


def replace_part(text, name, part):
    """`text` with what is between two comments in it replaced: they are `<!-- bench: NAME -->` and `<!-- bench: end -->`."""
    begin, end = f"<!-- bench: {name} -->\n", "<!-- bench: end -->"
    before, found, after = text.partition(begin)
    if not found:
        raise ValueError(f"there is no {begin.strip()}")
    return before + begin + "\n" + part.strip() + "\n\n" + end + after.partition(end)[2]
