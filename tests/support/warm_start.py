"""Servers start in a fifth of the time: forked from a process with the imports done.

What is forked runs ``python -m MODULE ...`` as ever: with the arguments, environment
and folder that it is given, in a session of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from importlib import import_module

_MESSAGE = 1 << 17


class Forker:
    """A process that has done ``import_light`` or ``import_heavy``, the ``imports``, in
    the environment ``environ``, and forks when it is told to."""

    def __init__(self, imports, environ):
        self.environ = environ
        self._channel, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        name, number = imports.__name__, str(theirs.fileno())
        command = [sys.executable, "-m", __name__, name, number]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=environ,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(self, command, *, env, cwd, output):
        """``command``, Python's ``-m MODULE ...``, printing to the file ``output``."""
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        message = json.dumps([command[2:], env, str(cwd)]).encode()
        with theirs:
            fds = [theirs.fileno(), output.fileno()]
            socket.send_fds(self._channel, [message], fds)
        return Forked(command, ours)


class Forked:
    """What runs, with those methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, command, channel):
        self.args, self._channel, self.returncode = command, channel, None
        self.pid = int(channel.recv(_MESSAGE))

    def wait(self, timeout=None):
        """The exit status, once it has ended."""
        if self.returncode is None:
            self._channel.settimeout(timeout)
            try:
                self.returncode = int(self._channel.recv(_MESSAGE))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            self._channel.close()
        return self.returncode

    def poll(self):
        """The exit status; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        """To what runs: the number of what has ended may be another's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """At once."""
        self.send_signal(signal.SIGKILL)


def import_light():
    """What the API imports before it loads a model, and the file server."""
    for name in (
        *("gunicorn.app.wsgiapp", "gunicorn.workers.gthread"),
        *("flux_api.factory", "file_server"),
    ):
        import_module(name)


def import_heavy():
    """What it imports for sets that are not quantized, too."""
    import_light()
    from flux_api.loading.libraries import prepare_libraries
    from flux_api.settings import Settings

    prepare_libraries(Settings.from_env({}), {})
    import flux_api.engine.backend  # noqa: F401


def fork_when_told(channel):
    """Fork for each message until the channel ends; returns None then, and in what was
    forked what it is to run and its channel's number."""
    running = {}
    signal.signal(signal.SIGCHLD, lambda *_: tell_of_ended(running))
    while True:
        message, fds, _, _ = socket.recv_fds(channel, _MESSAGE, 2)
        if not message:
            return None
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            break
        running[pid] = socket.socket(fileno=fds[0])
        os.close(fds[1])
        running[pid].send(str(pid).encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for other in [channel, *running.values()]:
        other.close()
    os.close(fds[0])
    return json.loads(message), fds[1]


def tell_of_ended(running):
    """Its status to whoever waits for it."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        # Nobody may wait any more.
        with running.pop(pid) as channel, contextlib.suppress(BrokenPipeError):
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(words, environ, folder, output):
    """Run ``python -m`` these words in this process, printing to ``output``."""
    os.setsid()
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = words
    sys.path[0] = folder
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    told = fork_when_told(socket.socket(fileno=int(sys.argv[2])))
    if told:
        become(*told[0], told[1])
