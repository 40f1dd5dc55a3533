"""The application factory: what is shared, and what costs nothing."""

from __future__ import annotations

import subprocess
import sys

from flux_api import create_app
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings
from tests.support.servers import ROOT


def manager_of(app):
    """The manager that ``app`` works with."""
    return app.extensions["flux_api"].manager


def test_two_apps_share_the_process_manager_unless_given_their_own():
    first = create_app(Settings())
    second = create_app(Settings())
    assert manager_of(first) is manager_of(second)
    own = PipelineManager(lambda: None)
    assert manager_of(create_app(Settings(), manager=own)) is own


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
