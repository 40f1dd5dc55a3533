"""Webhooks: the end of a job is told to an address that its request named."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from flux_api.errors import FluxError, WebhookRefused
from flux_api.net.connections import FAILURES, Deadline, ask, open_connection
from flux_api.net.fetch import Fetcher, Refused
from flux_api.net.urls import Url, UrlError, is_named, parse_url
from flux_api.net.webhook_files import Locked, Promise, Webhook

logger = logging.getLogger(__name__)

KEPT_WEBHOOKS = 1000
SIGNATURE = "X-BFL-Signature"
_ANSWER_SECONDS = 30.0
_CHECK_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 1800.0
# Each may hold a thread for as long as its receiver takes; one place is kept from a
# receiver that never answers.
_AT_ONCE = 4
_EACH = 3


class Webhooks:
    """Sends webhooks from files in ``folder`` to ``hosts``, as far as ``fetcher`` would
    go there, again and again until they are taken or a day is over. Several processes
    may share the folder. A receiver may hear the same twice, where this process ended
    before it saw the answer."""

    def __init__(self, fetcher: Fetcher, hosts: tuple[str, ...], folder: Path) -> None:
        self._fetcher, self._folder = fetcher, folder
        self._hosts = tuple(host.lower() for host in hosts)
        self._started = False
        self._starting = threading.Lock()
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._counting = threading.Lock()
        self._running: Counter[str] = Counter()
        # When each file is due (monotonic seconds), and the pause before that.
        self._due: dict[Path, tuple[float, float]] = {}

    def start(self) -> None:
        """Begin to send what lies there, in threads of its own; later calls do nothing.
        The log says where nothing can be kept."""
        if self._started:  # asked before every request: not to wait for the lock
            return
        with self._starting:
            if not self._started and self._hosts:
                self._start()
            # Not before: where no thread is to be had, the next request tries again.
            self._started = True

    def _start(self) -> None:
        try:
            self._make_folder()
        except OSError as error:
            why = error.strerror
            logger.error("FLUX_STATE_DIR cannot be used, no webhook is taken: %s", why)
        else:
            threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def check(self, url: str) -> None:
        """WebhookRefused where ``url`` may not be told anything."""
        try:
            with Deadline(_CHECK_SECONDS) as deadline:
                self._fetcher.checked_addresses(self._parse(url), deadline)
        except (Refused, OSError):
            raise _refusal(
                "The host of webhook_url has no public address; those of private "
                "networks need FLUX_ALLOW_PRIVATE_NETS."
            ) from None

    def promise(self, url: str, secret: str | None, last_words: str) -> Promise:
        """A place for what ``url`` is to be told; where this process ends before that
        is known, it is ``last_words``. WebhookRefused where there is no room."""
        try:
            self._make_folder()
            if sum(1 for _ in self._folder.glob("*.json")) >= KEPT_WEBHOOKS:
                message = f"{KEPT_WEBHOOKS} webhooks wait for their receivers already."
                raise _refusal(message)
            return Promise(self._folder, url, secret, last_words)
        except OSError as error:
            logger.error("a webhook cannot be kept: %s", error.strerror)
            raise _refusal(
                "This server cannot keep webhooks at the moment: leave 'webhook_url' "
                "out and ask for the result."
            ) from None

    def _make_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "not writable")

    def _parse(self, text: str) -> Url:
        try:
            url = parse_url(text.strip())
        except UrlError as error:
            raise _refusal(f"webhook_url {error}.") from None
        if not is_named(url.host, self._hosts):
            raise _refusal(
                "This server may not call that host: its operator has to add it to "
                "FLUX_WEBHOOK_HOSTS."
            )
        return url

    def _run(self) -> None:
        while True:
            try:
                files = sorted(self._folder.glob("*.json"))
                # What was delivered, here or by another process, has no time any more.
                self._due = {f: self._due[f] for f in files if f in self._due}
                for file in files:
                    if self._due.get(file, (0, 0))[0] <= time.monotonic():
                        self._begin(file)
            except OSError as error:
                logger.warning("webhooks cannot be read: %s", error.strerror)
            time.sleep(_LOOK_SECONDS)

    def _begin(self, file: Path) -> None:
        """Send what ``file`` says in a thread of its own, unless its end is still to
        come, or another process is at it."""
        try:
            locked = Locked(file)
        except ValueError:
            logger.error("a file that is not a webhook was removed")
            file.unlink(missing_ok=True)
            return
        except OSError as error:
            # One that somebody else put there does not keep the others waiting.
            logger.warning("a webhook's file cannot be read: %s", error.strerror)
            self._postpone(file)
            return
        if locked.webhook is None:
            locked.close()
            return
        receiver = _receiver_of(locked.webhook)
        with self._counting:
            if self._running[receiver] >= _EACH:
                locked.close()
                return
            self._running[receiver] += 1
        # Whatever comes of it: if it is taken, the file will be gone by then.
        self._postpone(file)
        # Waits while all are taken: what is behind is looked at later.
        self._slots.acquire()
        thread = threading.Thread(
            target=self._try, args=(locked, locked.webhook), name="webhook", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            # Short of threads: the others are looked at still, this one after a pause.
            logger.warning("a webhook cannot be sent for now: %s", error)
            locked.close()
            self._give_back(receiver)

    def _postpone(self, file: Path) -> None:
        """Have ``file`` looked at again after a pause, twice as long each time."""
        pause = self._due.get(file, (0.0, 0.0))[1]
        pause = min(_LONGEST_PAUSE, pause * 2 or _FIRST_PAUSE)
        self._due[file] = time.monotonic() + pause, pause

    def _try(self, locked: Locked, webhook: Webhook) -> None:
        try:
            with closing(locked):
                if time.time() > webhook.until:
                    logger.error("a webhook was not taken for a day, and is given up")
                    locked.remove()
                elif self._send(webhook):
                    locked.remove()
        finally:
            self._give_back(_receiver_of(webhook))

    def _give_back(self, receiver: str) -> None:
        """One fewer is being sent there."""
        with self._counting:
            self._running -= Counter([receiver])
        self._slots.release()

    def _send(self, webhook: Webhook) -> bool:
        """Whether it was taken."""
        try:
            status = self._post(webhook)
        except (Refused, FluxError, *FAILURES) as error:
            logger.warning("a webhook was not taken: %s", type(error).__name__)
            return False
        if not 200 <= status < 300:
            logger.warning("a webhook was not taken: status %d", status)
        return 200 <= status < 300

    def _post(self, webhook: Webhook) -> int:
        url, body = self._parse(webhook.url), webhook.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "flux-imaging-api",
        }
        if webhook.secret:
            headers[SIGNATURE] = sign(webhook.secret, body)
        with Deadline(_ANSWER_SECONDS) as deadline:
            connection = open_connection(
                *url.origin,
                addresses=self._fetcher.checked_addresses(url, deadline),
                deadline=deadline,
                read_seconds=_ANSWER_SECONDS,
            )
            return ask(
                connection, "POST", url.target, body=body, headers=headers, most=0
            )[0]


def _receiver_of(webhook: Webhook) -> str:
    """Scheme, host and port, as they are written."""
    return "/".join(webhook.url.split("/", 3)[:3])


def _refusal(message: str) -> WebhookRefused:
    return WebhookRefused(message, param="webhook_url")


def sign(secret: str, body: bytes) -> str:
    """What the header SIGNATURE holds for ``body``."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
