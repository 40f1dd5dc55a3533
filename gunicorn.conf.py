"""gunicorn for one GPU: one worker, threads enough that health always finds one.

gunicorn reads this file for every application started in this folder, the file server
included; what concerns the API alone is in ``post_worker_init``.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import sys
import threading
import time
from queue import SimpleQueue

import gunicorn.app.base
import gunicorn.util
from gunicorn.glogging import Logger

HERE = os.path.dirname(os.path.abspath(__file__))
formatter_for = runpy.run_path(os.path.join(HERE, "log_lines.py"))["formatter_for"]


def write_error(sock, status, reason, _message):
    """gunicorn's answer to HTTP that is none, as JSON; the message would repeat it."""
    if status == 500 and sturdy["is_short"](sys.exc_info()[1]):
        gunicorn.util.write_nonblock(sock, sturdy["BUSY"])
        return
    kind = "server_error" if status == 500 else "invalid_request_error"
    code = "internal_error" if status == 500 else "invalid_request"
    error = {"message": f"{reason}.", "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error})
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    gunicorn.util.write_nonblock(sock, (head + body).encode("ascii"))


gunicorn.util.write_error = write_error
sturdy = runpy.run_path(os.path.join(HERE, "sturdy_worker.py"))
takeover = runpy.run_path(os.path.join(HERE, "takeover.py"))
gunicorn.app.base.Arbiter = takeover["TakeoverArbiter"]


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


def whole_number(name, default):
    """A setting that this file needs; the application refuses a wrong one by name."""
    text = os.environ.get(name, "").strip().partition(".")[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else default


bind = "127.0.0.1:8000"
workers = 1
worker_class = sturdy["SturdyWorker"]
preload_app = False
# A waiting request holds a thread: the queue, what runs (16 at most here, 128 in a
# cluster), the watchers, and 8 more for health and refusals. With fewer the surplus
# would wait unseen.
running = 16 if os.environ.get("FLUX_BACKEND", "local").strip() != "ray" else 128
queue = whole_number("FLUX_MAX_QUEUE", 32)
watchers = whole_number("FLUX_MAX_WATCHERS", 32)
needed_threads = queue + running + watchers + 8
threads = needed_threads
# More than threads: beyond it nobody is accepted, not even to be told 429.
worker_connections = needed_threads + 1000
timeout = 120
graceful_timeout = whole_number("FLUX_REQUEST_TIMEOUT", 280) + 30
keepalive = 75
max_requests = 0
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
# What a proxy says of the address counts where there are proxies, for each application.
proxies = whole_number("FLUX_TRUSTED_PROXIES", 0)
proxies += whole_number("FILES_TRUSTED_PROXIES", 0)
forwarded_allow_ips = "*" if proxies else ""
forwarder_headers = "SCRIPT_NAME" if proxies else ""
loglevel = os.environ.get("FLUX_LOG_LEVEL", "").strip() or "info"
logger_class = ServerLogger
# Should somebody turn it on: no query, no referrer.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(D)s'


def post_fork(arbiter, worker):
    """Let the new worker know of those before it."""
    worker.handover = arbiter.handover_of(worker)


def post_worker_init(worker):
    """Begin to load the model, now that the worker has forked; drain at TERM."""
    extensions = getattr(worker.wsgi, "extensions", {})
    for name in ("file_server", "flux_api"):
        if name in extensions:
            # A request's head and its answer are bounded by the setting for bodies.
            seconds = extensions[name].settings.body_timeout
            worker.client_seconds = max(1.0, seconds)
    if "file_server" in extensions:
        from file_server import warn_if_open

        warn_if_open(worker.wsgi, [listener.sock for listener in worker.sockets])
    context = extensions.get("flux_api")
    if context is None:
        worker.handover.say_ready()
        return
    check_options(worker)
    from flux_api.api_keys import is_loopback

    addresses = [socket.getsockname() for socket in worker.sockets]
    # FLUX_METRICS_BIND answers /metrics alone, which needs no key.
    metrics = context.settings.metrics_address
    addresses = [address for address in addresses if address[:2] != metrics]
    if not context.settings.api_keys and not all(map(is_loopback, addresses)):
        worker.log.warning(
            "anybody who reaches this port can use it: set FLUX_API_KEYS or bind to "
            "127.0.0.1"
        )
    if not context.settings.api_keys and not context.settings.trusted_proxies:
        context.hosts.bind(addresses)
    worker.busy = lambda: is_busy(context.manager)
    worker.has_successor = lambda: worker.handover.has_successor
    drain_at_term(worker, context.manager)
    if worker.alive:  # it may have been ended while it booted
        # The listener is shared: until this one is ready, requests are the old one's.
        if worker.handover.waits:
            worker.worker_connections = 0
        elif worker.handover.beside:
            # The older one takes no requests yet, so nothing is lost.
            worker.handover.ask_for_room()
        context.manager.start(worker.handover)
        context.webhooks.start()
        threading.Thread(
            target=take_over,
            args=(worker, context.manager),
            name="flux-takeover",
            daemon=True,
        ).start()


def check_options(worker):
    """End where gunicorn was told what the API cannot work with."""
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


def take_over(worker, manager):
    """Accept connections when the model is loaded, or when nobody else does."""
    handover = worker.handover
    while manager.state != "ready":
        if not handover.beside:
            open_door(worker)
        elif handover.waits and manager.state == "failed":
            handover.say_failed(manager.not_ready)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.1)
    open_door(worker)


def is_busy(manager):
    """Whether a job runs, or pictures that nobody waited for are still being stored."""
    if not manager.wait_idle(0.5):
        return True
    names = [thread.name for thread in threading.enumerate()]
    return any(name.startswith("flux-finish") for name in names)


def open_door(worker):
    """Accept connections."""
    if worker.worker_connections != worker.cfg.worker_connections:
        worker.worker_connections = worker.cfg.worker_connections
        worker.method_queue.defer(lambda: None)  # it looks when something happens


def drain_at_term(worker, manager):
    """Have TERM finish what was taken."""
    stop = signal.getsignal(signal.SIGTERM)

    # No Event: a second signal that comes while it is being set would wait for itself.
    terminated = SimpleQueue()

    def stop_when_idle():
        terminated.get()
        # A moment before the master's patience ends, and with it this process. A newer
        # worker that wants its room waits for as long as it takes.
        until = time.monotonic() + worker.cfg.graceful_timeout - 1
        while not manager.wait_idle(0.5):
            if time.monotonic() > until and not worker.handover.has_successor:
                worker.log.warning("unfinished requests are given up")
                break
        stop(signal.SIGTERM, None)

    def drain(signum, frame):
        if worker.handover.replaced:
            # New connections are the new worker's; what comes on one that was kept
            # alive is still served here.
            stop(signum, frame)
            return
        manager.drain()
        # The listener stays open meanwhile: whoever comes is told 503 instead of
        # waiting in its backlog for a process that ends.
        terminated.put(True)

    # Begun now: a signal may come while a thread is being started.
    threading.Thread(target=stop_when_idle, name="flux-drain", daemon=True).start()
    signal.signal(signal.SIGTERM, drain)


def worker_exit(arbiter, worker):
    """End at once: the interpreter's own end would wait for the threads of requests,
    and may abort in one that is loading."""
    extensions = getattr(getattr(worker, "wsgi", None), "extensions", {})
    # The master calls this too.
    if os.getpid() == worker.pid and "flux_api" in extensions:
        logging.shutdown()
        code = getattr(sys.exc_info()[1], "code", 1)
        os._exit(code if isinstance(code, int) else 1)
