"""Signs of life of those who ask replicas for pictures: Ray tells a replica when a
picture is cancelled, not when the process that asked for it is gone."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_put,
)

SILENT_LOOKS = 10
"""After so many seconds one is taken for gone. If it is not, it begins its picture
again."""

_FORGOTTEN_LOOKS = 600
_BEAT_SECONDS = 1.0
_NAMESPACE = b"flux_api"


class Pulse:
    """That of this process, once it has joined the cluster, under the name ``id``."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)

    def start(self) -> None:
        """Show life from now on, in a thread of its own."""
        threading.Thread(target=self._beat, name="flux-pulse", daemon=True).start()

    def _beat(self) -> None:
        for number in itertools.count():
            # Without the cluster's store nobody can look either.
            with contextlib.suppress(Exception):
                _internal_kv_put(self.id, str(number), True, namespace=_NAMESPACE)
            time.sleep(_BEAT_SECONDS)


class Listener:
    """Hears of others whether they live, looking by a thread of its own: the store may
    let it wait, and who draws must not. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The last beat of each, and in how many looks it has stayed the same.
        self._heard: dict[str, tuple[bytes | None, int]] = {}

    def start(self) -> None:
        """Look from now on."""
        threading.Thread(target=self._listen, name="flux-listen", daemon=True).start()

    def hears(self, pulse: str) -> bool:
        """Whether the process of ``pulse`` lives, as far as anybody can say."""
        with self._lock:
            return self._heard.setdefault(pulse, (None, 0))[1] < SILENT_LOOKS

    def _listen(self) -> None:
        while True:
            time.sleep(_BEAT_SECONDS)
            with self._lock:
                known = list(self._heard)
            for pulse in known:
                with contextlib.suppress(Exception):  # Nobody can say while it fails.
                    self._look(pulse)

    def _look(self, pulse: str) -> None:
        beat = _internal_kv_get(pulse, namespace=_NAMESPACE)
        with self._lock:
            last, same = self._heard[pulse]
            self._heard[pulse] = beat, same + 1 if beat == last else 0
            if same < _FORGOTTEN_LOOKS:
                return
            del self._heard[pulse]
        _internal_kv_del(pulse, namespace=_NAMESPACE)
