"""The Ray Serve application: started, looked at, changed and stopped."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve

from flux_api.cluster.replica import FAILED, Replica
from flux_api.errors import Unavailable
from flux_api.queue.manager import PipelineManager

logger = logging.getLogger(__name__)

APPLICATION = "flux"
DEPLOYMENT = "Replica"
NAMESPACE = "serve"
# One that waits in Ray's own queue says nothing; all others wait in the fair queue.
_MOST_WAITING = 64
_REASON = re.compile(re.escape(FAILED) + r"(.*)")


@dataclass(frozen=True)
class Replicas:
    """From ``least`` to ``most`` replicas, with ``gpus`` each (a fraction shares a
    card, 0 is the CPU) and ``cpus``, which hold ``slots`` pictures and ``models`` sets
    each."""

    least: int
    most: int
    gpus: float
    cpus: float
    slots: int
    models: int


@dataclass(frozen=True)
class Status:
    """``state`` is Ray's word for the application, or "NOT_STARTED"; ``running`` counts
    replicas that take work, ``coming`` the others; ``reason`` says what failed."""

    state: str
    running: int = 0
    coming: int = 0
    reason: str = ""


def connect() -> None:
    """Join the cluster of ``RAY_ADDRESS``, by default this machine's. Unavailable
    where there is none, or it wants another token."""
    if ray.is_initialized():
        return
    _log_like_the_rest()
    try:
        ray.init(
            address="auto",
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        logger.debug("ray.init: %s", error)
        message = f"There is no Ray cluster to use ({type(error).__name__})."
        raise Unavailable(message, retry_after=10) from error


def _log_like_the_rest() -> None:
    """Ray's own handlers write lines of another form to the same place."""
    for name in ("ray", "ray.serve"):
        found = logging.getLogger(name)
        found.handlers.clear()
        found.propagate = True
        found.setLevel(logging.WARNING)


def deploy(
    make_manager: Callable[[Mapping[str, str]], PipelineManager],
    environ: Mapping[str, str],
    replicas: Replicas,
    *,
    seconds: float,
) -> None:
    """Start the application, or replace a running one replica by replica; an old one
    finishes what it runs within ``seconds``. Returns when all can draw; RuntimeError
    where they cannot."""
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=replicas.slots,
        max_queued_requests=_MOST_WAITING,
        ray_actor_options={"num_gpus": replicas.gpus, "num_cpus": replicas.cpus},
        graceful_shutdown_timeout_s=seconds,
        health_check_period_s=5,
        health_check_timeout_s=30,
        max_constructor_retry_count=3,
        # A card holds the weights once: there an old one has to end first.
        max_surge_percent=0 if replicas.gpus else 100,
        **_scaling(replicas),
    )(Replica)
    application = deployment.bind(
        make_manager, dict(environ), replicas.most, replicas.models
    )
    serve.run(application, name=APPLICATION, route_prefix=None)


def _scaling(replicas: Replicas) -> dict[str, Any]:
    if replicas.least == replicas.most:
        return {"num_replicas": replicas.most}
    return {
        "autoscaling_config": {
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            # Each more than one shares forwards, or waits.
            "target_ongoing_requests": 1,
            "upscale_delay_s": 10,
            "downscale_delay_s": 600,
        }
    }


def look() -> Status:
    """How the application is."""
    found = serve.status().applications.get(APPLICATION)
    if found is None:
        return Status("NOT_STARTED")
    deployment = found.deployments.get(DEPLOYMENT)
    states = dict(deployment.replica_states) if deployment is not None else {}
    running = states.pop("RUNNING", 0)
    told = f"{found.message} {deployment.message if deployment else ''}"
    reasons = _REASON.findall(told)
    return Status(
        str(getattr(found.status, "value", found.status)),
        running,
        sum(states.get(s, 0) for s in ("STARTING", "UPDATING", "RECOVERING")),
        reasons[-1].strip() if reasons else "",
    )


def stop() -> None:
    """End the application; what runs is finished."""
    serve.delete(APPLICATION)
