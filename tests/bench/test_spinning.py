"""Spinning threads are told apart from waiting ones, and compared round by round."""

import ctypes.util
import sys
from pathlib import Path

import pytest
from bench.load import Turn
from bench.process import Absent, Process
from bench.spinning import ENVIRONMENT, HOCKET, SPINS, Side, spins_told
from hypothesis import given
from hypothesis import strategies as st

RATES = st.lists(st.floats(10, 1000), min_size=1, max_size=7)


def _side(rates: list[float]) -> Side:
    turns = [
        Turn(seconds=1000 / rate, tokens=1000, first_token=0.5, first_sentence=0.7,
             client_cpu_share=0.1)
        for rate in rates
    ]  # fmt: skip
    return Side(2000, turns=turns, cores=[1.5] * len(rates))


@given(RATES, st.floats(0.25, 4), st.data())
def test_what_disturbs_a_whole_round_changes_no_comparison(
    rates: list[float], gain: float, data: st.DataObject
) -> None:
    """Sides are compared with each other in each round, not with other rounds."""
    drift = data.draw(st.lists(st.floats(0.1, 1), min_size=len(rates), max_size=len(rates)))
    slowed = [rate * by for rate, by in zip(rates, drift, strict=True)]
    ours, other = _side(slowed), _side([rate * gain for rate in slowed])
    assert other.report(ours)["against_hocket"] == pytest.approx(gain, abs=0.001)
    assert ours.report(ours)["against_hocket"] == 1


def test_figures_are_medians() -> None:
    """One turn that was disturbed moves none of them."""
    calm, disturbed = _side([100.0, 110.0, 120.0]), _side([100.0, 110.0, 120.0])
    disturbed.turns[0] = _side([1.0]).turns[0]
    disturbed.cores[0] = 0.01
    before, after = calm.report(calm), disturbed.report(calm)
    assert before["tokens_per_second"] == after["tokens_per_second"] == 110.0
    assert before["server_cores"] == after["server_cores"] == 1.5
    assert after["against_hocket"] == 1
    assert after["rates"] == [1.0, 110.0, 120.0]
    assert after["loop_lag_ms"] is None


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("no OpenMP here", "nothing"),
        ("  GOMP_SPINCOUNT = '0'\n  GOMP_SPINCOUNT = '2000'", "0 and 2000"),
    ],
)
def test_a_server_whose_spins_are_unknown_is_not_measured(log: str, told: str) -> None:
    """Its figures would be taken for those of another setting."""
    with pytest.raises(Absent, match=f"to be {told}$"):
        spins_told(log)


async def _told(
    spins: str | None, monkeypatch: pytest.MonkeyPatch, log: Path, before: str = ""
) -> int:
    """Return what libgomp takes in a process of a measurement, whatever our own environment has."""
    library = ctypes.util.find_library("gomp")
    if library is None:
        pytest.skip("there is no libgomp")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    loads = f"{before}\nimport ctypes; ctypes.CDLL({library!r}); print('{{}}')"
    process = Process(
        [sys.executable, "-c", loads],
        log=log,
        environment={**ENVIRONMENT, "GOMP_SPINCOUNT": spins},
        answers=True,
    )
    try:
        await process.hear()
    finally:
        await process.end()
    return spins_told(log.read_text(encoding="utf-8"))


async def test_what_stands_for_libgomps_default_is_what_it_takes_of_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server would set the variable, so its default has to be set by value."""
    default = await _told(None, monkeypatch, tmp_path / "log")
    assert default == int(SPINS["libgomp"] or 0)


async def test_the_three_servers_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The choice of hocket reaches the library, and lies between waiting and spinning long."""
    prepares = "from hocket.server.startup import prepare_torch; prepare_torch()"
    found = {
        name: await _told(spins, monkeypatch, tmp_path / name, prepares)
        for name, spins in SPINS.items()
    }
    assert 0 == found["waiting"] < found[HOCKET] < found["libgomp"]
