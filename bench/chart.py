"""Charts as SVG: small panels side by side, each with lines over a common horizontal axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _GAP = 360.0, 250.0, 26.0  # of a panel, and between panels
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 64.0, 46.0  # inside a panel, around the plot
_HEADER, _FOOTER, _MARGIN = 68.0, 24.0, 24.0
_TICKS = 5
_NAMESPACE = "http://www.w3.org/2000/svg"
_FONT = "Inter, Helvetica Neue, Segoe UI, Arial, sans-serif"
_INK, _SOFT = "#1f2933", "#616e7c"
# Attributes rather than a style sheet, which not every viewer reads.
_KINDS = {
    "title": f'font-size="19" font-weight="600" fill="{_INK}"',
    "note": f'font-size="12" fill="{_SOFT}"',
    "name": f'font-size="14" font-weight="600" fill="{_INK}"',
    "tick": f'font-size="11" fill="{_SOFT}"',
    "key": f'font-size="11" fill="{_INK}"',
}
_LINE = 'fill="none" stroke-linejoin="round" stroke-linecap="round" stroke-width'
_LABEL, _ASIDE = 13.0, 8.0  # height of a value's label, and how far it stands aside
_APART = 2.0  # points nearer than this share a label


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a panel.

    Attributes:
        name: In the panel's key.
        values: One for each place on the horizontal axis; None leaves a hole.
        color: As SVG names it.
        is_bound: A line that the others are measured against: dashed, without dots.
    """

    name: str
    values: Sequence[float | None]
    color: str
    is_bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small chart.

    Attributes:
        name: What it shows.
        unit: Of the vertical axis, which begins at 0.
        lines: At least one.
    """

    name: str
    unit: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Panels over a common horizontal axis.

    Attributes:
        title: Of the whole.
        note: Beneath it: on what it was measured.
        axis: What the horizontal axis counts.
        places: Its values, ascending, above 0; drawn at equal ratios.
        panels: From left to right, top to bottom.
        columns: Panels in a row.
    """

    title: str
    note: str
    axis: str
    places: Sequence[float]
    panels: Sequence[Panel]
    columns: int = 2

    def svg(self) -> str:
        """Return the chart as a document."""
        columns = min(self.columns, len(self.panels))
        rows = -(-len(self.panels) // columns)
        width = 2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GAP
        height = _HEADER + rows * _HEIGHT + (rows - 1) * _GAP + _FOOTER
        parts = [
            f'<svg xmlns="{_NAMESPACE}" width="{width:g}" height="{height:g}">',
            f"<title>{escape(self.title)}</title>",
            f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#f7f9fb"/>',
            _text(_MARGIN, 34, self.title, "title"),
            _text(_MARGIN, 54, self.note, "note"),
        ]
        for number, panel in enumerate(self.panels):
            x = _MARGIN + number % columns * (_WIDTH + _GAP)
            y = _HEADER + number // columns * (_HEIGHT + _GAP)
            parts += [f'<g transform="translate({x:g} {y:g})">', *self._panel(panel), "</g>"]
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _panel(self, panel: Panel) -> list[str]:
        top = top_of([v for line in panel.lines for v in line.values if v is not None])
        right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        parts = [
            f'<rect width="{_WIDTH:g}" height="{_HEIGHT:g}" rx="6" fill="#fff" stroke="#e4e9ee"/>',
            _text(16, 25, panel.name, "name"),
            _text(_WIDTH - 16, 25, panel.unit, "tick", anchor="end"),
        ]
        for tick in range(_TICKS + 1):
            value = top * tick / _TICKS
            y = self._y(value, top)
            color = "#c3ccd5" if tick == 0 else "#edf1f4"
            parts += [
                f'<path d="M{_LEFT:g} {y:.1f}H{right:g}" stroke="{color}"/>',
                _text(_LEFT - 8, y + 4, _number(value), "tick", anchor="end"),
            ]
        for place in self.places:
            x = self._x(place)
            parts += [
                f'<path d="M{x:.1f} {floor:g}v4" stroke="#c3ccd5"/>',
                _text(x, floor + 18, _number(place), "tick", anchor="middle"),
            ]
        middle = (_LEFT + right) / 2
        parts.append(_text(middle, _HEIGHT - 10, self.axis, "tick", anchor="middle"))
        at = 16.0
        for line in panel.lines:
            parts += [*_key(at, line), *self._line(line, top)]
            at += 34 + 6.0 * len(line.name)
        return [*parts, *self._labels(panel, top)]

    def _line(self, line: Line, top: float) -> list[str]:
        points = [
            (self._x(place), self._y(value, top))
            for place, value in zip(self.places, line.values, strict=True)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="6 4"' if line.is_bound else ""
        parts = [f'<polyline points="{path}" {_LINE}="2.2" stroke="{line.color}"{dashes}/>']
        if line.is_bound:
            return parts
        dot = f'r="3.6" fill="{line.color}" stroke="#fff" stroke-width="1.2"'
        return parts + [f'<circle cx="{x:.1f}" cy="{y:.1f}" {dot}/>' for x, y in points]

    def _labels(self, panel: Panel, top: float) -> list[str]:
        """Label the highest point of each place above it, and those that are clear of it below."""
        labels = []
        for number, place in enumerate(self.places):
            points = sorted(
                (self._y(value, top), _number(value), line.color)
                for line in panel.lines
                if not line.is_bound and (value := line.values[number]) is not None
            )
            for rank, (y, text, color) in enumerate(points):
                is_at_floor = y + _LABEL + 8 > _HEIGHT - _BOTTOM
                if rank and (is_at_floor or y - points[rank - 1][0] < _APART):
                    continue
                x = self._x(place) + (_ASIDE if rank else -_ASIDE)  # clear of a line that rises
                at = y + _LABEL + 3 if rank else y - 8
                labels.append(_text(x, at, text, "tick", anchor="middle", fill=color))
        return labels

    def _x(self, place: float) -> float:
        """Return where a value of the horizontal axis lies, a little inside the plot."""
        first, last = math.log(self.places[0]), math.log(self.places[-1])
        share = (math.log(place) - first) / (last - first) if last > first else 0.5
        left, right = _LEFT + 22, _WIDTH - _RIGHT - 22
        return left + share * (right - left)

    @staticmethod
    def _y(value: float, top: float) -> float:
        floor = _HEIGHT - _BOTTOM
        return floor - value / top * (floor - _TOP)


def top_of(values: Sequence[float]) -> float:
    """Return where an axis of round ticks ends that holds all values, with room for a label."""
    highest = max(values, default=0.0) * 1.06
    if highest <= 0:
        return 1.0
    step = highest / _TICKS
    power = 10.0 ** math.floor(math.log10(step))
    nice = next(factor for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if factor * power >= step)
    return nice * power * _TICKS


def _key(at: float, line: Line) -> list[str]:
    dashes = ' stroke-dasharray="4 3"' if line.is_bound else ""
    return [
        f'<path d="M{at:.1f} 41h18" stroke="{line.color}" stroke-width="2.6"{dashes}/>',
        _text(at + 23, 45, line.name, "key"),
    ]


def _text(
    x: float, y: float, text: str, kind: str, *, anchor: str = "start", fill: str | None = None
) -> str:
    look = _KINDS[kind] if fill is None else f'font-size="11" font-weight="600" fill="{fill}"'
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="{_FONT}" {look}>'
        f"{escape(text)}</text>"
    )


def _number(value: float) -> str:
    """Return three significant digits, and thousands apart."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
