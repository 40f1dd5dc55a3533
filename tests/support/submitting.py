"""A request's way into a manager in this process, in one call."""

from __future__ import annotations


def submit(manager, request, **who):
    """The job of ``request`` for ``who``: caller, owner, job_id, is_wanted."""
    job = manager.open(**who)
    manager.submit(job, request)
    return job
