"""Shares of the machine: equal, and never more than there is."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.errors import StartupError
from hocket.server.model.config import RunnerConfig
from hocket.server.model.shares import physical_cores, share_of


@given(
    workers=st.integers(1, 64),
    threads=st.integers(0, 256),
    cache=st.integers(64, 4_096),
    saved=st.integers(0, 4_096),
    prefixes=st.integers(0, 4_096),
)
def test_the_shares_of_all_workers_fit_the_machine(workers, threads, cache, saved, prefixes):
    """Memory is never exceeded; threads only where there are more workers than threads."""
    config = RunnerConfig(
        num_threads=threads, kv_cache_mib=cache, saved_kv_mib=saved, prefix_cache_mib=prefixes
    )
    share = share_of(config, workers)
    assert share.kv_cache_mib > 0
    memory = [field.name for field in fields(config) if field.name.endswith("_mib")]
    assert len(memory) == 3
    for name in memory:
        assert getattr(share, name) * workers <= getattr(config, name)
    if workers > 1:
        assert share.num_threads >= 1
        most = max(threads or physical_cores(), workers)
        assert share.num_threads * workers <= most


def test_one_worker_gets_what_was_set():
    config = RunnerConfig()
    assert share_of(config, 1) is config


def test_a_cache_that_cannot_be_divided_is_refused():
    with pytest.raises(StartupError, match=r"^runner.kv_cache_mib is 3, .* each of 4 workers$"):
        share_of(RunnerConfig(kv_cache_mib=3), 4)
