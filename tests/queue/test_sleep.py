"""Weights that go to sleep unused: once, and not while anything goes on."""

from __future__ import annotations

import pytest

from flux_api.errors import StillWorking
from flux_api.queue.sleep import Sleep
from tests.support.servers import wait_for


class Sleeper:
    """A backend that counts how often it is put to sleep."""

    asleep, sleeps = None, 0

    def sleep(self, kept=None):
        self.sleeps += 1
        self.asleep = "host"


class Idle:
    """Says that nothing goes on, and counts the looks."""

    looks = 0

    def __call__(self):
        self.looks += 1
        return True


def test_unused_weights_go_to_sleep_once():
    backend, idle = Sleeper(), Idle()
    Sleep(backend, idle, idle_seconds=0.1).start()
    wait_for(lambda: backend.asleep, 10)
    before = idle.looks
    wait_for(lambda: idle.looks > before + 8, 10)
    assert backend.sleeps == 1


class Hesitant(Sleeper):
    """One that gets a job in the very moment that it is to sleep, the first time."""

    refusals = 0

    def sleep(self, kept=None):
        if not self.refusals:
            self.refusals += 1
            raise StillWorking("A job has come.")
        super().sleep()


def test_a_job_that_comes_in_that_moment_does_not_keep_weights_awake_for_ever():
    backend = Hesitant()
    Sleep(backend, Idle(), idle_seconds=0.1).start()
    wait_for(lambda: backend.asleep, 10)
    assert (backend.refusals, backend.sleeps) == (1, 1)


class Clumsy(Hesitant):
    """One that fails in a way that nobody foresaw, the first time."""

    def sleep(self, kept=None):
        try:
            super().sleep()
        except StillWorking:
            raise OSError("too many open files") from None


def test_a_failure_does_not_keep_weights_awake_for_ever(caplog):
    backend = Clumsy()
    Sleep(backend, Idle(), idle_seconds=0.1).start()
    wait_for(lambda: backend.asleep, 10)
    assert (backend.refusals, backend.sleeps) == (1, 1)
    assert "could not leave the device" in caplog.text


def test_nothing_goes_to_sleep_while_there_are_jobs():
    backend = Sleeper()
    with pytest.raises(StillWorking):
        Sleep(backend, lambda: False, idle_seconds=0).sleep()
    assert backend.sleeps == 0
