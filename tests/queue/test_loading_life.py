"""What counts as a sign of life of a thread that loads weights."""

from __future__ import annotations

import mmap
import threading

import pytest

from flux_api.queue.loading_life import LoadingLife

PAGES = 4096


class Loader:
    """A thread that loads, and does ``work`` when it is told to."""

    def __init__(self, work):
        self._work, self._done = work, threading.Event()
        self._made, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._made.wait(10)

    def _run(self):
        self.life = LoadingLife()
        self._made.set()
        self._go_on.wait(10)
        self._work(self.life)
        self._done.set()
        # A thread that is gone has no counters.
        self._go_on.clear()
        self._go_on.wait(10)

    def work(self):
        """Do it."""
        self._go_on.set()
        assert self._done.wait(10)

    def end(self):
        self._go_on.set()
        self._thread.join(10)


def read(file):
    """Bytes come by a call, as most loaders have it."""
    return lambda life: file.read(PAGES)


def touch(file):
    """Bytes come as page faults alone, as in mapped files that are cached."""
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return lambda life: sum(pages[:: mmap.PAGESIZE])


def tell(file):
    """A component is done, or bytes were downloaded, which others read."""
    return lambda life: life.show()


@pytest.mark.parametrize("way", [read, touch, tell])
def test_bytes_and_words_are_life_and_waiting_is_none(way, tmp_path):
    (tmp_path / "weights").write_bytes(bytes(PAGES * mmap.PAGESIZE))
    with open(tmp_path / "weights", "rb", buffering=0) as file:
        loader = Loader(way(file))
        try:
            loader.life.last_sign()
            before = loader.life.last_sign()
            assert loader.life.last_sign() == before
            loader.work()
            assert loader.life.last_sign() > before
        finally:
            loader.end()
