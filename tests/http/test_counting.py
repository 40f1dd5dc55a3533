"""By which word a request is counted: whose fault it was, and whether a picture was
begun."""

from __future__ import annotations

import pytest

from flux_api.http.counting import outcome_of


@pytest.mark.parametrize(
    ("status", "fresh", "started"),
    [
        (200, "done", "done"),
        (304, "done", "done"),
        (400, "refused", "refused"),
        (429, "refused", "refused"),
        (499, "cancelled", "cancelled"),
        (408, "timeout", "timeout"),
        (504, "timeout", "timeout"),
        (500, "failed", "failed"),
        # Out of room before a picture was begun, nothing is lost.
        (503, "refused", "failed"),
        (507, "refused", "failed"),
    ],
)
def test_a_status_is_a_word(status, fresh, started):
    assert outcome_of(status, started=False) == fresh
    assert outcome_of(status, started=True) == started
