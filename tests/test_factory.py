"""The application factory: what is shared, and what costs nothing."""

from __future__ import annotations

import subprocess
import sys

import flux_api
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings
from tests.support.servers import ROOT


def manager_of(app):
    """The manager that ``app`` works with."""
    return app.extensions["flux_api"].manager


def test_two_apps_share_the_process_manager_unless_given_their_own():
    first = flux_api.create_app(Settings())
    second = flux_api.create_app(Settings())
    assert manager_of(first) is manager_of(second)
    own = PipelineManager(lambda: None)
    assert manager_of(flux_api.create_app(Settings(), manager=own)) is own


def test_making_an_app_imports_no_torch_and_starts_no_thread():
    code = (
        "import sys, threading, wsgi\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'bitsandbytes'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == ["[]", "1"]


def test_modules_keep_to_their_side():
    """Blueprints know no torch, what drives torch knows no Flask."""
    for module, strangers in {
        "flux_api.engine.backend": {"flask", "werkzeug", "requests", "gunicorn"},
        "flux_api.queue.manager": {"flask", "torch", "diffusers", "PIL", "requests"},
        "flux_api.blueprints.original": {"torch", "diffusers", "transformers"},
        "flux_api.net.fetch": {"flask", "torch", "PIL"},
        "flux_api.images.codec": {"flask", "torch", "requests"},
        "flux_api.core": {"flask", "torch", "PIL", "requests"},
    }.items():
        # The package itself is the composition root: it imports everything but torch.
        code = (
            "import sys, types\n"
            "package = types.ModuleType('flux_api')\n"
            "package.__path__ = ['flux_api']\n"
            "sys.modules['flux_api'] = package\n"
            f"import {module}\n"
            f"print(sorted({strangers!r} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
        )
        found = done.stdout.decode().strip()
        if module == "flux_api.engine.backend":
            # diffusers brings an HTTP client of its own.
            found = found.replace("'requests'", "").replace(", ", "")
        assert found == "[]", module
