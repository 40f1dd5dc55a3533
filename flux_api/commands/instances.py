"""What ``serve --instances`` starts: one gunicorn for each GPU or number, the file
server, and nginx in front; each with its settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flux_api.api_keys import is_loopback
from flux_api.commands.nginx import Site, site_text, whole_text
from flux_api.settings import LOCAL_NAMES, Settings
from flux_server.state import state_folder, user_folder

SETTINGS = Path(__file__).parents[2] / "flux_server" / "gunicorn_settings.py"
GUNICORN = (sys.executable, "-m", "gunicorn", "-c", str(SETTINGS))
_COUNT_GPUS = "import torch; print(torch.cuda.device_count())"


@dataclass(frozen=True)
class Layout:
    """Where everything listens, as HOST:PORT, and on which GPUs."""

    bind: str
    files_bind: str
    first_port: int
    """The first instance's on 127.0.0.1; the others' follow."""
    gpus: tuple[str | None, ...]
    """What each instance has for CUDA_VISIBLE_DEVICES; None leaves it as it is."""
    certificate: tuple[Path, Path] | None
    environ: Mapping[str, str]

    @cached_property
    def settings(self) -> Settings:
        """The API's settings; BadSetting names a wrong one."""
        return Settings.from_env(self.environ)

    @property
    def instances(self) -> tuple[str, ...]:
        """The address of each."""
        ports = range(self.first_port, self.first_port + len(self.gpus))
        return tuple(f"127.0.0.1:{port}" for port in ports)

    @property
    def listeners(self) -> list[tuple[str, str]]:
        """Who is to listen, and where."""
        own = [(f"instance g{n}", at) for n, at in enumerate(self.instances)]
        return [("callers", self.bind), ("file server", self.files_bind), *own]

    @property
    def url(self) -> str:
        """How this machine reaches all of it."""
        return f"{'https' if self.certificate else 'http'}://{local(self.bind)}"

    @cached_property
    def state(self) -> Path:
        """The folder for what is written, a checkout's ``var`` by default."""
        # Sets of instances from one checkout are kept apart by it.
        if Path(self.environ.get("XDG_STATE_HOME", "")).is_absolute():
            return user_folder(self.environ)
        return state_folder(self.environ)

    @property
    def storage(self) -> str:
        """The file server's STORAGE_URL; by default where it stores alone, too."""
        default = state_folder(self.environ) / "images"
        return self.environ.get("STORAGE_URL", "").strip() or default.as_uri()

    @property
    def site(self) -> Site:
        """What nginx is told."""
        stored = urlsplit(self.storage)
        # What is to be removed some day is not to be kept by browsers for a year.
        is_served = stored.scheme == "file" and not self.environ.get("FILES_TTL_HOURS")
        return Site(
            self.bind,
            self.instances,
            local(self.files_bind),
            certificate=self.certificate,
            folder=Path(unquote(stored.path)).resolve() if is_served else None,
            outer_proxies=self.settings.trusted_proxies,
            body_mb=self.settings.max_upload_mb,
            seconds=round(self.settings.request_timeout) + 20,
        )

    def api_environ(self, number: int) -> dict[str, str]:
        """The environment of instance ``number``."""
        settings, given = self.settings, dict(self.environ)
        given |= {
            "FLUX_INSTANCE": str(number),
            "FLUX_TRUSTED_PROXIES": str(settings.trusted_proxies + 1),
        }
        if not settings.file_server:
            given["FILE_SERVER"] = f"http://{local(self.files_bind)}"
            # nginx hands out the pictures of this one as well.
            public = settings.file_server_public_url or self.url
            given["FILE_SERVER_PUBLIC_URL"] = public
        gpu = self.gpus[number]
        if gpu is not None:
            given["CUDA_VISIBLE_DEVICES"] = gpu
        else:
            # Together they are to have as many threads as there are cores.
            # Those this process may use: a container often has fewer than the machine.
            share = len(os.sched_getaffinity(0)) // len(self.gpus)
            given.setdefault("OMP_NUM_THREADS", str(max(1, share)))
        if settings.metrics_bind and (address := settings.metrics_address):
            host = settings.metrics_bind.rpartition(":")[0]
            given["FLUX_METRICS_BIND"] = f"{host}:{address[1] + number}"
        if is_local(self.bind) and not (
            settings.api_keys or settings.trusted_hosts or settings.trusted_proxies
        ):
            # Behind nginx they would answer to any name, whose page may be anybody's.
            # A proxy in front of that has a name of its own.
            host = self.bind.rpartition(":")[0].strip("[]")
            given["FLUX_TRUSTED_HOSTS"] = ",".join((*LOCAL_NAMES, host))
        return given

    def files_environ(self) -> dict[str, str]:
        """The environment of the file server."""
        proxies = self.settings.trusted_proxies + 1
        own = {"FILES_TRUSTED_PROXIES": str(proxies), "STORAGE_URL": self.storage}
        return {**self.environ, **own}

    def nginx_command(self, program: str) -> list[str]:
        """nginx with its configuration, which is written."""
        folder = self.state / f"nginx-{self.bind.rpartition(':')[2]}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "nginx.conf"
        path.write_text(whole_text(self.site, folder), "utf-8")
        # As root nginx would choose somebody who may not look into this folder.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        return [program, "-e", "stderr", "-p", str(folder), "-c", str(path), *user]

    def nginx_text(self) -> str:
        """The configuration for an nginx of the operator's own."""
        site = self.site
        if "STORAGE_URL" not in self.environ:
            # It may run elsewhere.
            site = replace(site, folder=None)
        return site_text(site)


def find_nginx(environ: Mapping[str, str]) -> str | None:
    """The program; it is often where only root looks."""
    places = (environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")
    return shutil.which("nginx", path=os.pathsep.join(places))


def list_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that CUDA shows, as CUDA_VISIBLE_DEVICES names them; those alone that it
    names already."""
    # In a process of its own: torch would stay in this one's memory.
    counted = subprocess.run(
        [sys.executable, "-c", _COUNT_GPUS],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
    )
    count = int(counted.stdout) if counted.returncode == 0 else 0
    named = environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    names = [name.strip() for name in named.split(",")] if named else range(count)
    return tuple(str(name) for name in names)[:count]


def local(address: str) -> str:
    """``address`` as this machine reaches it."""
    host, _, port = address.rpartition(":")
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{reached.get(host, host)}:{port}"


def is_local(address: str) -> bool:
    """Whether only this machine reaches ``address``."""
    return is_loopback((address.rpartition(":")[0],))
