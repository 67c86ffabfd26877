"""A scripted model on an engine that runs, without a server."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from hocket.server.catalogue import ServedModel
from hocket.server.engine.config import EngineConfig
from hocket.server.engine.core import EngineCore
from hocket.server.engine.driver import EngineDriver
from hocket.server.testing.scripted_runner import ScriptedRunner
from hocket.server.testing.serving import ScriptedModel


def script(answers):
    """Return a script that answers by what a prompt holds: the first that it does.

    Args:
        answers: Pairs of a part of a prompt and the answer to it.
    """

    def answer(prompt: bytes) -> bytes:
        text = prompt.decode()
        return next((said for part, said in answers if part in text), "?").encode()

    return answer


@asynccontextmanager
async def driven(loaded=None, *, engine=None, on_step=lambda _: None) -> AsyncIterator[ServedModel]:
    """Serve a model, scripted or real, until the block ends; nothing may be left in progress."""
    loaded = loaded or ScriptedModel()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="hocket-engine") as executor:
        core = EngineCore(loaded.runner, loaded.tokenizer, engine or EngineConfig(), loop.time)
        driver = EngineDriver(core, executor, on_step=on_step)
        running = asyncio.create_task(driver.run())
        try:
            yield ServedModel(
                description=loaded.description,
                limits=loaded.limits,
                tokenizer=loaded.tokenizer,
                chat_template=loaded.chat_template,
                engine=driver,
            )
        finally:
            driver.stop()
            await running
            assert driver.in_progress == 0
            core.check_integrity()


def scripted(*answers, chat=True, **limits) -> ScriptedModel:
    """Return a model that answers by what a prompt holds."""
    model = ScriptedModel(runner=ScriptedRunner(script(answers), **limits))
    return model if chat else ScriptedModel(runner=model.runner, chat_template=None)


async def run_here(work):
    """Run what would go to a text thread."""
    await asyncio.sleep(0)
    return work()
