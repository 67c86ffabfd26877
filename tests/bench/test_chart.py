"""Charts are documents that any reader of XML understands."""

from xml.etree import ElementTree as ET

from bench.chart import Chart, Line, Panel, top_of
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"


def _chart(values: list[float | None], *, name: str = 'over <gRPC> & "co"') -> Chart:
    lines = [
        Line(name=name, values=values, color="#2563eb"),
        Line(name="bound", values=[10.0] * len(values), color="#94a3b8", is_bound=True),
    ]
    return Chart(
        title=name,
        note="here",
        axis="streams",
        places=[2.0**number for number in range(len(values))],
        panels=[Panel(name="Throughput", unit="tokens/s", lines=lines)] * 4,
    )


@given(st.lists(st.none() | st.floats(min_value=0, max_value=1e6), min_size=1, max_size=6))
def test_every_value_has_a_dot_inside_the_picture(values: list[float | None]) -> None:
    root = ET.fromstring(_chart(values).svg())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == 4 * sum(value is not None for value in values)
    assert all(0 < float(dot.attrib["cx"]) < width for dot in dots)
    assert all(0 < float(dot.attrib["cy"]) < height for dot in dots)


def test_a_higher_value_stands_higher_and_a_bound_is_dashed_without_dots() -> None:
    root = ET.fromstring(_chart([1.0, 5.0, None, 9.0]).svg())
    dots = list(root.iter(f"{SVG}circle"))[:3]
    heights = [float(dot.attrib["cy"]) for dot in dots]
    assert heights == sorted(heights, reverse=True)
    dashed = [line for line in root.iter(f"{SVG}polyline") if "stroke-dasharray" in line.attrib]
    assert len(dashed) == 4


def test_names_and_units_are_text_as_they_are() -> None:
    root = ET.fromstring(_chart([1.0, 2.0]).svg())
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"Throughput", "tokens/s", "streams", 'over <gRPC> & "co"'} <= set(texts)


@given(st.lists(st.floats(min_value=1e-3, max_value=1e9), min_size=1))
def test_an_axis_holds_its_values_and_wastes_less_than_half(values: list[float]) -> None:
    assert max(values) < top_of(values) <= 2.2 * max(values)
