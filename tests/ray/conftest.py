"""One cluster, and an API over it, for all of these tests."""

from __future__ import annotations

import pytest

from tests.ray.cluster import run_cluster
from tests.support.servers import run_api


@pytest.fixture(scope="session")
def cluster():
    """Two replicas of the default model on the CPU."""
    with run_cluster() as it:
        it.deployed("start", "--replicas", "2", "--gpus", "0")
        yield it


@pytest.fixture(scope="session")
def ray_settings(cluster):
    """What makes an API draw by it."""
    return {"FLUX_BACKEND": "ray", **cluster.settings}


@pytest.fixture(scope="session")
def over_ray(ray_settings):
    """The API over the cluster, with a short queue."""
    keys = "ada:key-of-ada-123,ben:key-of-ben-123"
    with run_api(FLUX_MAX_QUEUE=4, FLUX_API_KEYS=keys, **ray_settings) as server:
        yield server.wait_ready(180)
