"""Small charts as inline SVG: lines, points and bars with axes, and nothing from elsewhere."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 420, 260

LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 44

COLOURS = ("#1f6feb", "#d1571f", "#2da44e", "#8250df", "#bf8700", "#cf222e", "#57606a", "#1b7c83")


class Line(NamedTuple):
    """One line or cloud of points."""

    name: str
    x: Any
    """Numbers in whatever holds them ..."""
    y: Any
    """... and as many."""
    kind: str = "line"
    """line, points, or dashes."""


class Axis(NamedTuple):
    """What stands along an axis."""

    name: str
    log: bool = False


def chart(lines: Sequence[Line], x: Axis, y: Axis, title: str) -> str:
    """Return a chart of lines; values that are not finite are left out."""
    shown = [_finite(line, x, y) for line in lines]
    points = [(a, b) for line in shown for a, b in zip(line.x, line.y, strict=True)]
    if not points:
        return ""
    across, up = _Scale([a for a, _ in points], x, LEFT, WIDTH - RIGHT), _Scale([b for _, b in points], y, HEIGHT - BOTTOM, TOP)
    drawn = [_drawn(line, COLOURS[k % len(COLOURS)], across, up) for k, line in enumerate(shown)]
    return _framed(_axes(across, up, x, y) + "".join(drawn) + _legend([line.name for line in shown]), title)


def bars(names: Sequence[str], values: Sequence[float], title: str, unit: str = "") -> str:
    """Return horizontal bars to either side of zero, each with its name and value."""
    if not names:
        return ""
    row, label = 20, 190
    height, most = row * len(names) + 8, max(map(abs, values)) or 1.0
    low = min(0.0, *values)
    room = (WIDTH - label - 70) / ((max(0.0, *values) - low) or most)
    zero, parts = label - low * room, []
    for k, (name, value) in enumerate(zip(names, values, strict=True)):
        at, size = 4 + k * row, abs(value) * room
        colour = COLOURS[0] if value >= 0.0 else COLOURS[1]
        start = zero if value >= 0.0 else zero - size
        parts.append(f'<rect x="{start:.1f}" y="{at}" width="{size:.1f}" height="{row - 5}" fill="{colour}"/>')
        parts.append(_text(label - 6, at + 11, name if len(name) < 30 else name[:27] + "...", "end"))
        parts.append(_text(zero + max(0.0, value * room) + 4, at + 11, f"{value:.4g}{unit}", "start"))
    return _framed("".join(parts), title, height)


def _finite(line: Line, x: Axis, y: Axis) -> Line:
    def good(value: float, axis: Axis) -> bool:
        return math.isfinite(value) and (value > 0.0 or not axis.log)

    kept = [(float(a), float(b)) for a, b in zip(line.x, line.y, strict=True) if good(a, x) and good(b, y)]
    return line._replace(x=[a for a, _ in kept], y=[b for _, b in kept])


class _Scale:
    """Values to pixels."""

    def __init__(self, values: Sequence[float], axis: Axis, start: float, stop: float) -> None:
        low, high = min(values), max(values)
        self.log = axis.log
        if axis.log:
            low, high = math.log10(low), math.log10(high)
        slack = (high - low) * 0.03 or max(abs(high), 1.0) * 0.05
        self.low, self.high, self.start, self.stop = low - slack, high + slack, start, stop

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            decades = range(math.ceil(self.low), math.floor(self.high) + 1)
            if len(decades) >= 2:
                return [10.0**k for k in decades]
            return [10.0 ** (self.low + (self.high - self.low) * k / 3) for k in range(4)]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 6)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


def _drawn(line: Line, colour: str, across: _Scale, up: _Scale) -> str:
    points = [(across(a), up(b)) for a, b in zip(line.x, line.y, strict=True)]
    if line.kind == "points":
        return "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2" fill="{colour}" fill-opacity="0.5"/>' for a, b in points)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    dashes = ' stroke-dasharray="4 3"' if line.kind == "dashes" else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>'


def _axes(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    bottom, parts = HEIGHT - BOTTOM, []
    for value in across.ticks():
        at = across(value)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}" stroke="#e4e7eb"/>')
        parts.append(_text(at, bottom + 14, _short(value), "middle"))
    for value in up.ticks():
        at = up(value)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#e4e7eb"/>')
        parts.append(_text(LEFT - 5, at + 4, _short(value), "end"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, x.name, "middle"))
    turned = f'transform="rotate(-90 12 {HEIGHT / 2:.0f})"'
    parts.append(f'<text x="12" y="{HEIGHT / 2:.0f}" text-anchor="middle" {turned}>{escape(y.name)}</text>')
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    parts = []
    for k, name in enumerate(name for name in names if name):
        at = TOP + 14 + 14 * k
        parts.append(f'<rect x="{WIDTH - 130}" y="{at - 8}" width="10" height="3" fill="{COLOURS[k % len(COLOURS)]}"/>')
        parts.append(_text(WIDTH - 116, at - 3, name, "start"))
    return "".join(parts)


def _framed(inside: str, title: str, height: int = HEIGHT) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" class="chart"><title>{escape(title)}</title>{inside}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):g}{letter}"
    return f"{value:,.0f}" if size >= 1e3 else f"{value:.3g}"
