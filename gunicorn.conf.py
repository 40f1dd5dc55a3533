"""gunicorn for one GPU: one worker, threads enough that health always finds one.

gunicorn reads this file for every application started in this folder, the file server
included; what concerns the API alone is in ``post_worker_init``.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import threading
from queue import SimpleQueue

import gunicorn.util
from gunicorn.glogging import Logger

HERE = os.path.dirname(os.path.abspath(__file__))
formatter_for = runpy.run_path(os.path.join(HERE, "log_lines.py"))["formatter_for"]


def write_error(sock, status, reason, _message):
    """gunicorn's answer to HTTP that is none, as JSON; the message would repeat it."""
    kind = "server_error" if status == 500 else "invalid_request_error"
    code = "internal_error" if status == 500 else "invalid_request"
    error = {"message": f"{reason}.", "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error})
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    gunicorn.util.write_nonblock(sock, (head + body).encode("ascii"))


gunicorn.util.write_error = write_error


class ServerLogger(Logger):
    """gunicorn's own lines in the form of the application's."""

    def warning(self, msg, *args, **kwargs):
        """Without the line or header that was wrong: a token may be in it."""
        if msg.startswith("Invalid request from ip="):
            msg = ": ".join(msg.split(": ")[:2])
        super().warning(msg, *args, **kwargs)

    def exception(self, msg, *args, **kwargs):
        """Without the query of the address."""
        args = [str(arg).partition("?")[0] for arg in args]
        super().exception(msg, *args, **kwargs)

    def setup(self, cfg):
        """Also when the configuration is read again."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter_for(handler.stream))


def whole(name, default):
    """A setting that this file needs; the application refuses a wrong one by name."""
    text = os.environ.get(name, "").strip().partition(".")[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else default


bind = "127.0.0.1:8000"
workers = 1
worker_class = "gthread"
preload_app = False
# A waiting request holds a thread: the queue, what runs (16 at most), the watchers,
# and 8 more for health and refusals. With fewer the surplus would wait unseen.
queue = whole("FLUX_MAX_QUEUE", 32)
watchers = whole("FLUX_MAX_WATCHERS", 32)
needed_threads = queue + 16 + watchers + 8
threads = needed_threads
# More than threads: beyond it nobody is accepted, not even to be told 429.
worker_connections = needed_threads + 1000
timeout = 120
graceful_timeout = whole("FLUX_REQUEST_TIMEOUT", 280) + 30
keepalive = 75
max_requests = 0
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
loglevel = os.environ.get("FLUX_LOG_LEVEL", "").strip() or "info"
logger_class = ServerLogger
# Should somebody turn it on: no query, no referrer.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(D)s'


def post_worker_init(worker):
    """Begin to load the model, now that the worker has forked; drain at TERM."""
    replaced = []
    signal.signal(signal.SIGUSR2, lambda signum, frame: replaced.append(True))
    extensions = getattr(worker.wsgi, "extensions", {})
    if "file_server" in extensions:
        from file_server import warn_if_open

        warn_if_open(worker.wsgi, [listener.sock for listener in worker.sockets])
    here = extensions.get("flux_api")
    if here is None:
        return
    if worker.cfg.workers > 1:
        worker.log.error(
            "--workers %d: the queue, the jobs and the model live in one process; for "
            "more GPUs start one gunicorn for each",
            worker.cfg.workers,
        )
        raise SystemExit(3)
    if worker.cfg.threads < needed_threads:
        worker.log.error(
            "--threads %d: FLUX_MAX_QUEUE=%d and FLUX_MAX_WATCHERS=%d need at least %d",
            *(worker.cfg.threads, queue, watchers, needed_threads),
        )
        raise SystemExit(3)  # gunicorn's own status for a worker that cannot boot
    from flux_api.api_keys import is_loopback

    addresses = [socket.getsockname() for socket in worker.sockets]
    if not here.settings.api_keys and not all(map(is_loopback, addresses)):
        worker.log.warning(
            "anybody who reaches this port can use it: set FLUX_API_KEYS or bind to "
            "127.0.0.1"
        )
    here.manager.start()
    stop = signal.getsignal(signal.SIGTERM)

    # No Event: a second signal that comes while it is being set would wait for itself.
    terminated = SimpleQueue()

    def stop_when_idle():
        terminated.get()
        here.manager.wait_idle(worker.cfg.graceful_timeout)
        stop(signal.SIGTERM, None)

    def drain(signum, frame):
        here.manager.drain()
        if replaced:
            stop(signum, frame)
            return
        # The listener stays open meanwhile: whoever comes is told 503 instead of
        # waiting in its backlog for a process that ends.
        terminated.put(True)

    # Begun now: a signal may come while a thread is being started.
    threading.Thread(target=stop_when_idle, name="flux-drain", daemon=True).start()
    signal.signal(signal.SIGTERM, drain)


def on_reload(arbiter):
    """Tell the workers that others take their place: what comes is for those."""
    for pid in list(arbiter.WORKERS):
        os.kill(pid, signal.SIGUSR2)
