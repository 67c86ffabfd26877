"""Parts come out as they are final and join to the stripped text."""

from hypothesis import given
from hypothesis import strategies as st

from hocket.server.document.trim import Trim

PARTS = st.lists(st.text(st.sampled_from(" \n\u3000aB.")))


@given(PARTS)
def test_parts_join_to_the_stripped_text(parts):
    trim = Trim()
    assert "".join(map(trim.push, parts)) == "".join(parts).strip()


@given(PARTS)
def test_what_can_be_shown_is_shown_at_once(parts):
    """Nothing waits but white space that may be the last."""
    trim, shown = Trim(), ""
    for count, part in enumerate(parts, start=1):
        shown += trim.push(part)
        assert shown == "".join(parts[:count]).strip()
