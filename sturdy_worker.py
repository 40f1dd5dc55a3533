"""gunicorn's threaded worker, outliving a shortage of descriptors, threads or memory,
and clients that never end what they began to say, or take nothing of their answer.

gunicorn's own ends with its model and all its jobs where a connection cannot be
accepted or a thread cannot be started, and gives each such client a thread for good.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import selectors
import socket
import ssl
import struct
import threading
import time
from concurrent import futures

from gunicorn.workers import gthread

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BODY = (
    b'{"error":{"message":"The server is short of resources; try again.","type":'
    b'"service_unavailable_error","param":null,"code":"server_is_overloaded"}}'
)
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
) % (len(_BODY), _BODY)
_MOST_DESCRIPTORS = 65_536
_MOST_STARTED = 128
# Most clients say what they want as soon as they are connected. Others are waited for
# by the main thread, which can wait for any number.
_GREETING_SECONDS = 0.05


def is_short(error):
    """Whether ``error`` says that this machine is short of something for a moment."""
    if isinstance(error, OSError):
        return error.errno in SHORT
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


class SturdyPool(futures.ThreadPoolExecutor):
    """One whose work waits for a thread that is free where none can be started."""

    def _adjust_thread_count(self):
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise


# At HUP gunicorn reads its settings again, and this file with them: it is laid over
# gunicorn's own connection each time, and not over itself.
_Connection = next(
    kind for kind in gthread.TConn.__mro__ if kind.__module__ == gthread.__name__
)


class PolledConnection(_Connection):
    """A connection that is waited for without a descriptor of its own, and may be
    closed twice."""

    closed = False

    def close(self, graceful=False):
        """As gunicorn, the first time."""
        closed, self.closed = self.closed, True
        if not closed:
            super().close(graceful)

    def wait_for_data(self, timeout):
        """Whether a request comes within ``timeout`` seconds, or rather a moment: one
        that says nothing held a thread for five seconds."""
        if not self.data_ready:
            with selectors.PollSelector() as selector:
                selector.register(self.sock, selectors.EVENT_READ)
                seconds = min(timeout, _GREETING_SECONDS)
                self.data_ready = bool(selector.select(seconds))
        return self.data_ready


gthread.TConn = PolledConnection


class SturdyWorker(gthread.ThreadWorker):
    """``busy()`` is asked, once no connection is left, whether to wait longer, and
    ``has_successor()`` whether another worker comes in its place. A request's head has
    to be there within ``client_seconds``, and some of the answer to be taken in
    each."""

    busy = staticmethod(lambda: False)
    has_successor = staticmethod(lambda: False)
    client_seconds = 30

    def init_process(self):
        """As gunicorn, with as many descriptors as the limit allows, and one spare."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_DESCRIPTORS
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._told = -60.0
        # Connections whose request has begun to come, and until when its head may.
        self._heads = {}
        # Until when, once it ends, it waits for those that have said nothing yet.
        self._patience = math.inf
        super().init_process()

    def get_thread_pool(self):
        """Most threads at once: later there may be no memory for their stacks."""
        pool = SturdyPool(max_workers=self.cfg.threads)
        started = threading.Event()
        for _ in range(min(self.cfg.threads, _MOST_STARTED)):
            pool.submit(started.wait)
        started.set()
        return pool

    def run(self):
        """As gunicorn, and a while longer for what has no connection: to its end where
        another worker has taken over, whom it keeps from nothing."""
        super().run()
        until = time.monotonic() + self.cfg.graceful_timeout
        while self.busy() and (self.has_successor() or time.monotonic() < until):
            self.notify()
            time.sleep(0.05)

    def is_parent_alive(self):
        """As gunicorn; without a master nobody is kept, and the port is free for the
        next one."""
        if super().is_parent_alive():
            return True
        self.alive = False
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        return False

    def accept(self, listener):
        """Take a connection; where there is no descriptor for it, by the spare one."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self._tell(error)
            # Who is idle makes room.
            self.murder_keepalived(force=True)
            self._refuse_next(listener)

    def on_client_socket_readable(self, conn, client):
        """As gunicorn, unless it was closed by :meth:`accept` in the same turn."""
        if client.fileno() >= 0:
            super().on_client_socket_readable(conn, client)

    def wait_for_and_dispatch_events(self, timeout):
        """As gunicorn; without memory, later."""
        try:
            super().wait_for_and_dispatch_events(timeout)
        except MemoryError as error:
            self._tell(error)
            time.sleep(0.1)

    def handle(self, conn):
        """As gunicorn, for a while: see :meth:`murder_pending`."""
        self._heads[conn] = time.monotonic() + self.client_seconds
        try:
            # For each time that something is sent, not for all together.
            limit = struct.pack("ll", int(self.client_seconds), 0)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            goes_on = super().handle(conn)
            if not goes_on:
                # For seconds, where the client does not close its side: gunicorn's
                # main thread, which does this otherwise, would accept nobody meanwhile.
                conn.close(graceful=True)
            return goes_on
        finally:
            self._heads.pop(conn, None)

    def handle_request(self, req, conn):
        """As gunicorn; the head is there. Who takes nothing of the answer has left."""
        self._heads.pop(conn, None)
        if isinstance(conn.sock, ssl.SSLSocket):
            # What the kernel gives up it would try again, without end.
            conn.sock.settimeout(self.client_seconds)
        try:
            return super().handle_request(req, conn)
        except (BlockingIOError, TimeoutError) as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None

    def murder_pending(self):
        """As gunicorn, and wake the threads that have waited for a head too long. Where
        there are as many connections as may be, those that say nothing make room, and
        they hold up no worker that is to end."""
        now = time.monotonic()
        if 0 < self.worker_connections <= self.nr_conns:
            for conn in self.pending_conns:
                conn.timeout = 0.0
            self.murder_keepalived(force=True)
        if not self.alive:
            self._patience = min(self._patience, now + gthread.STOP_KEEPALIVE_LINGER)
            for conn in self.pending_conns:
                conn.timeout = min(conn.timeout, self._patience)
        super().murder_pending()
        for conn, until in self._heads.copy().items():
            if until < now:
                with contextlib.suppress(OSError):
                    # The plain socket's own: that of TLS forgets what it has received.
                    socket.socket.shutdown(conn.sock, socket.SHUT_RD)

    def _tell(self, error):
        """Say it, once a minute."""
        if time.monotonic() - self._told >= 60:
            self._told = time.monotonic()
            self.log.error("short of resources, refusing connections: %s", error)

    def _refuse_next(self, listener):
        with contextlib.suppress(OSError):
            if self._spare is None:
                self._spare = os.open(os.devnull, os.O_RDONLY)
            os.close(self._spare)
            self._spare = None
            client, _ = listener.accept()
            self.tpool.submit(self._refuse, client)
            return
        time.sleep(0.05)  # nothing is free; the others wait in the backlog

    def _refuse(self, client):
        with contextlib.suppress(OSError), client:
            # Others wait for the spare descriptor.
            client.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                # A request that lies unread would become a reset.
                client.recv(65_536)
            client.sendall(BUSY)
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)
