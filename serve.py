"""``make serve``: the API and the file server together, until Ctrl-C.

Starts two processes, shows the loading, prints the addresses and a first command, and
stops both. Everything that can be set in the environment goes through to them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

HERE = Path(__file__).resolve().parent
_open = build_opener(ProxyHandler({})).open


def main() -> int:
    """Run both until a signal or until one of them ends; the exit status."""
    options = parse_options()
    for name, address in (("API", options.bind), ("file server", options.files_bind)):
        if is_taken(address):
            print(
                f"{address} is in use: stop what runs there, or choose another "
                f"address for the {name} (see 'python serve.py --help').",
                file=sys.stderr,
            )
            return 1
    # Ctrl-C too: a shell starts its background jobs with it switched off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, raise_interrupt)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        start(options, processes)
        return watch(options, processes)
    except KeyboardInterrupt:
        print("\nStopping; a running picture is finished first.", flush=True)
        return 0
    finally:
        stop(processes)


def parse_options() -> argparse.Namespace:
    """The addresses to listen on."""
    parser = argparse.ArgumentParser(description="The API and the file server.")
    add = partial(parser.add_argument, type=parse_address, metavar="HOST:PORT")
    add("--bind", default="127.0.0.1:8000")
    add("--files-bind", default="127.0.0.1:8010")
    options = parser.parse_args()
    if options.bind.rpartition(":")[2] == options.files_bind.rpartition(":")[2]:
        parser.error("--bind and --files-bind need different ports")
    return options


def parse_address(text: str) -> str:
    """``text`` where it is HOST:PORT; ArgumentTypeError where not."""
    host, _, port = text.rpartition(":")
    if host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")


def start(
    options: argparse.Namespace, processes: list[subprocess.Popen[bytes]]
) -> None:
    """Both servers, each in a session of its own: Ctrl-C reaches only this process,
    which then stops them in order."""
    files = f"http://{local(options.files_bind)}"
    environ = os.environ | {"FILE_SERVER": os.environ.get("FILE_SERVER") or files}
    gunicorn = [sys.executable, "-m", "gunicorn"]
    commands = [
        [*gunicorn, "-b", options.files_bind, "file_server:create_app()"],
        [*gunicorn, "-c", "gunicorn.conf.py", "-b", options.bind, "wsgi:app"],
    ]
    for command in commands:
        processes.append(
            subprocess.Popen(command, cwd=HERE, env=environ, start_new_session=True)
        )


def watch(options: argparse.Namespace, processes: list[subprocess.Popen[bytes]]) -> int:
    """Show what the API is doing until it is ready, then wait for an end."""
    said = None
    while all(process.poll() is None for process in processes):
        reason = not_ready(f"http://{local(options.bind)}/readyz")
        if reason != said:
            print(welcome(options) if reason is None else f"... {reason}", flush=True)
            said = reason
        time.sleep(0.2 if reason else 1.0)
    print("A server ended by itself; its last lines say why.", file=sys.stderr)
    return 1


def not_ready(url: str) -> str | None:
    """Why the API takes no requests yet, None when it does."""
    try:
        with _open(url, timeout=5) as answer:
            # Another server on this port is not ours.
            return None if "model" in json.load(answer) else "starting"
    except HTTPError as error:
        try:
            return str(json.load(error)["reason"])
        except (ValueError, KeyError, TypeError):
            return f"status {error.code}"
    except (URLError, OSError, ValueError):
        return "starting"


def welcome(options: argparse.Namespace) -> str:
    """The addresses, and a command to paste."""
    api = f"http://{local(options.bind)}"
    return f"""
Flux Imaging API is ready.
  Page          {api}/
  API           {api}        (OpenAI SDK: base_url="{api}/v1")
  File server   http://{local(options.files_bind)}

Try it:
  curl {api}/process/raw -F "prompt=a red heart" -F seed=7 -o heart.png

Ctrl-C stops both.
"""


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """TERM to each, the API first; a second Ctrl-C does not wait."""
    try:
        for process in reversed(processes):
            if process.poll() is None:
                process.terminate()
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def is_taken(address: str) -> bool:
    """Whether something answers at ``host:port``."""
    host, _, port = local(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def local(address: str) -> str:
    """``address`` as this machine reaches it."""
    host, _, port = address.rpartition(":")
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{reached.get(host, host)}:{port}"


def raise_interrupt(signum: int, frame: object) -> None:
    """TERM is a Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
