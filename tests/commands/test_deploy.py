"""``deploy ray``: what its options take. The rest needs a cluster, see tests/ray."""

from __future__ import annotations

import click
import pytest

from flux_api.commands.deploy import start


def read(*options):
    """What ``deploy ray start`` is told by ``options``."""
    return start.make_context("start", list(options)).params


@pytest.mark.parametrize(
    ("text", "least_and_most"),
    [("4", (4, 4)), ("1-8", (1, 8)), ("2-2", (2, 2)), ("9999", (9999, 9999))],
)
def test_replicas_are_a_number_or_a_range(text, least_and_most):
    assert read("--replicas", text)["replicas"] == least_and_most


def test_without_options_it_is_one_with_a_gpu_and_a_core():
    assert read() == {"replicas": (1, 1), "gpus": 1.0, "cpus": 1.0}


@pytest.mark.parametrize(
    "options",
    [
        *(["--replicas", text] for text in ("0", "0-1", "8-1", "1-", "-1", "x", "1.5")),
        *(["--gpus", text] for text in ("-1", "x")),
        *(["--cpus", text] for text in ("-0.5", "x")),
    ],
    ids=" ".join,
)
def test_what_is_no_number_of_them_is_refused(options):
    with pytest.raises(click.BadParameter):
        read(*options)


def test_a_card_may_be_shared_and_the_cpu_is_none():
    assert read("--gpus", "0.5", "--cpus", "0")["gpus"] == 0.5
    assert read("--gpus", "0")["gpus"] == 0
