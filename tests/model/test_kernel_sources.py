"""What stands in the kernels' sources and in Python is the same, and all of it is wanted."""

import re

import pytest

from hocket.server.model.native import compiler, decoder, packing

pytestmark = pytest.mark.torch

FILES = {file.name: file.read_text(encoding="utf-8") for file in compiler.SOURCES.iterdir()}
SOURCE = re.sub(r"//[^\n]*", "", "".join(FILES.values()))
STRUCTURES = ("Linear", "Layer", "Model", "Slice", "Step")


def fields(structure: str) -> list[str]:
    (body,) = re.findall(rf"struct {structure} \{{(.*?)\}};", SOURCE, re.DOTALL)
    return [
        re.findall(r"\w+", name)[-1]
        for line in body.split(";")
        if line.strip()
        for name in line.split(",")
    ]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_is_handed_to_the_kernels_is_read(structure):
    found = fields(structure)
    unread = [name for name in found if not re.search(rf"(\.|->){name}\b", SOURCE)]
    assert len(found) > 3
    assert set(unread) <= {"reserved"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kPanel", packing._PANEL),
        ("kGroup", packing.GROUP),
        ("kMostHidden", decoder._MOST_HIDDEN),
        ("kMostDim", decoder._MOST_HEAD),
    ],
)
def test_a_number_of_the_kernels_is_named_once_and_is_pythons(name, value):
    assert re.findall(rf"\b{name} = (\d+);", SOURCE) == [str(value)]


def test_the_largest_width_is_written_nowhere_else():
    assert len(re.findall(rf"\b{decoder._MOST_HIDDEN}\b", SOURCE)) == 1
