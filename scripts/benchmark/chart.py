"""Charts as SVG, written by hand: they are read with a light and a dark background, and need nothing to be drawn.

`bars` shows what baton costs in terms of each rival, a group of bars a row, against a line at 1. `panels` shows how
something grows: a small chart for each row, a line for each server, over powers of ten.
"""

import math
from html import escape

from benchmark.results import RIVALS

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .quiet { fill: #59636e } .title { font-size: 15px; font-weight: 600 } 
  .figure { font-size: 11px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
  .rule { stroke: #d1d9e0 } .one { stroke: #1f2328; stroke-width: 1.5 } .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .quiet { fill: #9198a1 } .figure { stroke: #0d1117 } .rule { stroke: #3d444d } .one { stroke: #f0f6fc }
  }
"""
# Of middling lightness: they are seen on white and on black.
COLOURS = {
    "baton": "#d1622b",
    "before": "#b08a5b",
    "bare": "#8b949e",
    "nginx": "#2f9e58",
    "nginx, log": "#7cc796",
    "haproxy": "#3b82d6",
    "varnish": "#8e6fd8",
    "squid": "#c2569b",
}
WIDTH, MARGIN = 860, 16


def drawing(title, height, parts):
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
        f"\n<title>{escape(title)}</title>\n<style>{STYLE}</style>"
    )
    return "\n".join([head, text(MARGIN, 26, title, "title"), *parts, "</svg>\n"])


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def rule(x1, y1, x2, y2, kind="rule"):
    return f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" class="{kind}"/>'


def legend(names, y, mark):
    """`mark`: says what a name stands for."""
    parts, x = [], MARGIN
    for name in names:
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{COLOURS[name]}"/>')
        parts.append(text(x + 18, y, mark(name)))
        x += 34 + 7 * len(mark(name))
    return parts


# === bars

BAR, GAP, LABELS = 13, 16, 330
# What is longer is cut off: its figure says how long it is.
MOST = 2.0


def bars(lines):
    ratios = [(line, {name: line.ratio(name) for name in RIVALS if line.ratio(name) is not None}) for line in lines]
    ratios = [(line, values) for line, values in ratios if values]
    names = [name for name in RIVALS if any(name in values for _, values in ratios)]
    top = 84
    bottom = top + sum(BAR * len(values) + GAP for _, values in ratios)
    scale = (WIDTH - LABELS - 70) / MOST
    parts = legend(names, 50, lambda name: f"baton : {name}")
    for tick in [0, 0.5, 1, 1.5, 2]:
        x = LABELS + tick * scale
        parts += [rule(x, top - 8, x, bottom, "one" if tick == 1 else "rule"), text(x, top - 14, f"{tick:g}", "quiet", "middle")]
    y = top
    for line, values in ratios:
        middle = y + BAR * len(values) / 2 + 4
        parts.append(text(LABELS - 12, middle, line.label, anchor="end"))
        for name, value in values.items():
            parts += bar(y, value, scale, COLOURS[name])
            y += BAR
        y += GAP
    return drawing("What baton costs in terms of others (less than 1: baton is cheaper)", bottom + MARGIN, parts)


def bar(y, value, scale, colour):
    length = max(min(value, MOST) * scale, 1)
    more = " ▸" if value > MOST else ""
    return [
        f'<rect x="{LABELS}" y="{y + 1}" width="{length:.1f}" height="{BAR - 2}" rx="2" fill="{colour}"/>',
        text(LABELS + length + 5, y + BAR - 3, f"{value:.2f}{more}", "figure"),
    ]


# === panels

ACROSS, PANEL_HEIGHT = 3, 190


def panels(title, charts):
    """`charts`: (what it shows, what is across, {server: {x: value}}), values being of one unit, the title's."""
    names = [name for name in COLOURS if any(name in series for _, _, series in charts)]
    parts = legend(names, 50, lambda name: name)
    for number, chart in enumerate(charts):
        x = MARGIN + number % ACROSS * ((WIDTH - 2 * MARGIN) / ACROSS)
        parts += panel(x, 72 + number // ACROSS * (PANEL_HEIGHT + 30), *chart)
    return drawing(title, 72 + math.ceil(len(charts) / ACROSS) * (PANEL_HEIGHT + 30), parts)


def panel(left, top, label, across, series):
    right, bottom = left + (WIDTH - 2 * MARGIN) / ACROSS - 24, top + PANEL_HEIGHT - 30
    left, first = left + 34, top + 26
    xs = sorted({x for values in series.values() for x in values})
    most = nice(max(value for values in series.values() for value in values.values()))
    low, high = math.log10(xs[0]), math.log10(xs[-1])
    place_x = lambda x: left + (math.log10(x) - low) / ((high - low) or 1) * (right - left)  # noqa: E731
    place_y = lambda value: bottom - value / most * (bottom - first)  # noqa: E731
    parts = [text(left, top + 10, label)]
    for tick in [0, most / 2, most]:
        parts += [rule(left, place_y(tick), right, place_y(tick)), text(left - 6, place_y(tick) + 4, f"{tick:g}", "quiet figure", "end")]
    for x in xs:
        parts.append(text(place_x(x), bottom + 16, power(x), "quiet figure", "middle"))
    parts.append(text(right, bottom + 30, across, "quiet figure", "end"))
    for name, values in series.items():
        points = [(place_x(x), place_y(value)) for x, value in sorted(values.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" class="line" stroke="{COLOURS[name]}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[name]}"/>' for x, y in points]
    return parts


def nice(value):
    """The least round number that is no less."""
    unit = 10 ** math.floor(math.log10(value))
    return next(step * unit for step in [1, 1.5, 2, 3, 4, 5, 6, 8, 10] if step * unit >= value)


def power(x):
    exponent = round(math.log10(x))
    return "1" if exponent == 0 else "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(exponent))
