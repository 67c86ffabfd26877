"""Places: all or none, in all and for each connection, always given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocket.server.admission import Admission, AdmissionConfig
from hocket.server.errors import Overloaded

CONFIG = AdmissionConfig(max_running=3, max_waiting=2, max_per_connection=4)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans()), max_size=60))
def test_no_limit_is_passed_and_every_place_comes_back(moves):
    admission = Admission(CONFIG, lambda: 0.0)
    held: list[tuple[str, int, object]] = []
    for connection, places, leaves in moves:
        if leaves and held:
            *_, permit = held.pop(0)
            permit.release()
            permit.release()
        else:
            taken = sum(count for _, count, _ in held)
            own = sum(count for name, count, _ in held if name == connection)
            if taken + places > 5 or own + places > 4:
                with pytest.raises(Overloaded):
                    admission.enter_nowait(connection, places)
            else:
                held.append((connection, places, admission.enter_nowait(connection, places)))
        assert admission.statistics().in_progress == sum(count for _, count, _ in held)
    for *_, permit in held:
        permit.release()
    statistics = admission.statistics()
    assert statistics.in_progress == statistics.connections == 0


def test_the_suggested_wait_follows_the_rate_of_leaving():
    now = 0.0
    admission = Admission(CONFIG, lambda: now)

    def refused() -> float:
        with pytest.raises(Overloaded) as caught:
            admission.enter_nowait("z", 4)
        return caught.value.retry_after_seconds

    permits = [admission.enter_nowait(name, 1) for name in "abcde"]
    waits = []
    for pace in (0.05, 5.0):
        for count in range(40):
            now += pace
            permits.pop(0).release()
            permits.append(admission.enter_nowait(f"{pace}/{count}", 1))
        waits.append(refused())
    assert 0 < waits[0] < waits[1]
