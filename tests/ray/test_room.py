"""How many pictures are sent to a cluster at once; without one."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("ray", reason="Ray is not installed: 'make test-ray' does it")

with warnings.catch_warnings():
    # Ray's own modules use what pydantic will drop.
    warnings.simplefilter("ignore")
    from flux_api.cluster.application import Status
    from flux_api.cluster.backend import RayBackend

from flux_api.models.catalog import MODEL_INFO
from tests.support.complete import complete


@pytest.mark.parametrize(
    ("replicas", "most", "slots", "share", "room"),
    [
        # A picture each; one more than they are makes the cluster grow.
        (2, 2, 1, 1, 2),
        (1, 4, 1, 1, 2),
        (3, 4, 1, 1, 4),
        # None is there yet: one waits.
        (0, 4, 1, 1, 1),
        # Of those that share forwards, as many as fit into them.
        (2, 2, 8, 3, 6),
        (2, 2, 2, 3, 4),
        # Each takes one, however large it is.
        (2, 2, 8, 0.1, 2),
    ],
)
def test_there_is_room_for_as_many_as_the_replicas_take(
    replicas, most, slots, share, room
):
    info = MODEL_INFO["tiny"]
    request = complete("tiny", info, prompt="a cat", size=(64, 64))
    backend = RayBackend({"tiny": info})
    tokens = int(share * backend.tokens(request))
    backend._told = {"most": most, "slots": slots, "batch_tokens": tokens}
    backend._status = Status("RUNNING", replicas)
    for running in range(room + 3):
        assert backend.joins(request, [request] * running) is (running < room), running
