"""What callers are told: which status each error has, and what is worth another try."""

from __future__ import annotations

import errno
import os
import re

import pytest

from flux_api import errors
from flux_api.errors import FluxError, shortage


def test_the_statuses_are_those_of_the_tree_that_describes_them():
    told = dict(re.findall(r"[├└]── (\w+) +(\d+)", errors.__doc__))
    kinds = {name: getattr(errors, name) for name in told}
    assert {name: str(kind.status) for name, kind in kinds.items()} == told
    assert set(FluxError.__subclasses__()) <= set(kinds.values())
    # Programs tell them apart by that; to a caller a body that is no JSON is one more
    # wrong value.
    codes = [kind.code for name, kind in kinds.items() if name != "NotJson"]
    assert len(set(codes)) == len(codes)


def of_the_system(number):
    """What Python raises where a call of the system fails so."""
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        *((of_the_system(n), "disk is full") for n in (errno.ENOSPC, errno.EDQUOT)),
        *((of_the_system(n), "short of") for n in (errno.EMFILE, errno.ENOMEM)),
        (MemoryError(), "short of"),
        (RuntimeError("can't start new thread"), "short of"),
        (RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: 1"), "short of"),
        (of_the_system(errno.ENOENT), None),
        (RuntimeError("shapes do not fit"), None),
        (ValueError("can't start new thread"), None),
    ],
    ids=repr,
)
def test_what_a_machine_is_short_of_for_a_moment_is_worth_another_try(error, words):
    found = shortage(error)
    if words is None:
        assert found is None
    else:
        assert words in found.message
        assert (found.status, found.should_retry) == (503, True)
        assert 1 <= found.retry_after <= 60
