"""What the log hears of faults that cost nobody anything."""

from hocket.server import startup


def test_setbacks_are_told_once_a_minute_and_counted(monkeypatch):
    told = []
    monkeypatch.setattr(startup._log, "warning", lambda *_, **fields: told.append(fields))
    now = 0.0
    setbacks = startup.Setbacks(lambda: now)
    for moment in (0.0, 1.0, 59.9, 60.0, 61.0, 200.0):
        now = moment
        setbacks(OSError(str(moment)))
    assert [fields["error"] for fields in told] == [
        "OSError('0.0')", "OSError('60.0')", "OSError('200.0')",
    ]  # fmt: skip
    assert [fields["others"] for fields in told] == [0, 2, 1]
