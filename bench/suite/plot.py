# SPDX-License-Identifier: Apache-2.0
"""Draws the ratios as an SVG: per class the slowdown against the host, and the gain over TCG where there is no host.

    python3 -m suite.plot build/bench.json docs/bench.svg      (in the folder bench)
"""
import json
import math
import sys
from html import escape

from .cases import GROUPS

WIDTH, LABEL, RIGHT, ROW, BAR = 900, 250, 70, 40, 13
COLORS = {"xlate": "#1f6feb", "tcg": "#9aa4af"}
TITLES = {"xlate": "Cicada xlate", "tcg": "QEMU TCG"}


class Panel:
    """A logarithmic axis with a row of bars and dots per class."""

    def __init__(self, top, title, rows):
        self.top, self.title, self.rows, self.out = top, title, rows, []
        values = [v for _, series in rows for _, mean, dots in series for v in [mean, *dots]]
        self.low = 10 ** math.floor(math.log10(min([1.0, *values])))
        self.high = 10 ** math.ceil(math.log10(max([2.0, *values])))
        self.height = 46 + len(rows) * ROW + 30

    def x(self, value):
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return LABEL + share * (WIDTH - LABEL - RIGHT)

    def text(self, x, y, words, anchor="start", size=12, fill="#24292f", weight="normal"):
        self.out.append('<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" font-weight="%s" fill="%s">%s</text>' % (
            x, y, anchor, size, weight, fill, escape(words)))

    def axis(self):
        bottom = self.top + 46 + len(self.rows) * ROW
        for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1):
            for step in (1, 2, 5):
                value = step * 10.0 ** power
                if value > self.high:
                    break
                self.out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-width="1"/>' % (
                    self.x(value), self.x(value), self.top + 40, bottom, "#57606a" if value == 1 else "#e4e8ec"))
                self.text(self.x(value), bottom + 15, "%g" % value, "middle", 11, "#57606a")

    def draw(self):
        self.text(10, self.top + 24, self.title, size=14, weight="bold")
        self.axis()
        for number, (name, series) in enumerate(self.rows):
            y = self.top + 46 + number * ROW
            self.text(LABEL - 10, y + BAR + 5, name, "end")
            for place, (target, mean, dots) in enumerate(series):
                self.bar(y + 4 + place * (BAR + 2), target, mean, dots)
        return self.out

    def bar(self, y, target, mean, dots):
        left, right = sorted((self.x(1), self.x(mean)))
        self.out.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>' % (
            left, y, max(right - left, 1), BAR, COLORS[target]))
        for value in dots:
            self.out.append('<circle cx="%.1f" cy="%.1f" r="2" fill="#24292f" fill-opacity="0.45"/>' % (
                self.x(value), y + BAR / 2))
        far = max([right, *map(self.x, dots)])
        self.text(far + 6, y + BAR - 2, "%.1f" % mean, size=11)


def rows(data, pairs):
    """For each class with such ratios: [(target, geometric mean, each case's ratio)]."""
    found = []
    for group, title in GROUPS.items():
        series = [(target, data["means"][group][key], [c["ratios"][key] for c in data["cases"] if
                                                       c["group"] == group and key in c["ratios"]])
                  for target, key in pairs if key in data["means"].get(group, {})]
        if series:
            found.append((group, title, series))
    return found


def draw(data):
    hosted = rows(data, (("xlate", "xlate/native"), ("tcg", "tcg/native")))
    hosted = [r for r in hosted if r[0] not in ("disk", "net")]
    groups = {r[0] for r in hosted}
    other = [r for r in rows(data, (("xlate", "tcg/xlate"),)) if r[0] not in groups]
    panels, top = [], 50
    for title, found in (("Times slower than the host (log scale, shorter is better)", hosted),
                         ("Times faster than TCG (log scale, longer is better)", other)):
        if found:
            panels.append(Panel(top, title, [(t, s) for _, t, s in found]))
            top += panels[-1].height
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif">' % (WIDTH, top + 24),
           '<rect width="%d" height="%d" fill="white"/>' % (WIDTH, top + 24)]
    for place, (target, title) in enumerate(TITLES.items()):
        out.append('<rect x="%d" y="18" width="12" height="12" fill="%s"/><text x="%d" y="29" font-size="13">%s</text>' % (
            LABEL + place * 150, COLORS[target], LABEL + 18 + place * 150, title))
    for panel in panels:
        out += panel.draw()
    out.append('<text x="10" y="%d" font-size="11" fill="#57606a">%s; bars are geometric means of a class, dots its cases; '
               'medians of %d runs, %s</text></svg>' % (top + 10, escape(data["host"]), data["runs"], data["when"][:10]))
    return "\n".join(out) + "\n"


def write(data, path):
    with open(path, "w", encoding="utf-8") as out:
        out.write(draw(data))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        write(json.load(source), sys.argv[2])
