"""Starts the image file server: ``python image_file_server.py``, port 8010."""

from __future__ import annotations

import os
import sys
from typing import Any

from gunicorn.app.base import BaseApplication

from file_server import Settings, SettingsError, create_app, warn_if_open
from flux_server.sturdy_worker import SturdyWorker


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with one process and threads, untouched by any gunicorn.conf.py."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        options: dict[str, Any] = {
            "bind": self.settings.bind,
            "worker_class": SturdyWorker,
            "workers": 1,
            # Uploads over slow lines hold a thread each; probes must find one.
            "threads": 32,
            "timeout": 120,
            "graceful_timeout": 30,
            "keepalive": 75,
            "limit_request_line": 8190,
            "proc_name": "image_file_server",
            "control_socket_disable": True,
            # Only FILES_TRUSTED_PROXIES says whose forwarding headers count.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
        }
        if os.path.isdir("/dev/shm"):
            # The heartbeat must not wait for the disk that the images are on.
            options["worker_tmp_dir"] = "/dev/shm"
        options["post_worker_init"] = lambda worker: warn_if_open(
            worker.wsgi, [listener.sock for listener in worker.sockets]
        )
        # For heads and answers what counts for bodies.
        SturdyWorker.client_seconds = max(1.0, self.settings.body_timeout)
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Make the application, in the worker process."""
        return create_app(self.settings)


def main() -> None:
    """Serve until a signal says stop."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(f"image_file_server: {error}")
    Server(settings).run()


if __name__ == "__main__":
    main()
