"""A card for the tests of this folder, and checkpoints of every set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.card_server import new_card

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """All of it is about GPUs: ``pytest -m gpu``."""
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A card of 16 GiB; None stands for a real one."""
    return new_card(tmp_path_factory.mktemp("card") / "card")


@pytest.fixture
def simulated(card):
    """The card, where it is one whose faults can be commanded."""
    if card is None:
        pytest.skip("a real GPU does not fail on command")
    return card
