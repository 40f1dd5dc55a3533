"""The API over a backend without torch, told by words in the prompt what to do.

``run_api(app="tests.support.fake_app:app")`` starts it in about a second. Words of a
prompt:

    pause=0.2   sleep that long at each step
    hang        never come back, and hear no stop
    hold        wait at the first step until ``POST /fake/release``
    fail=WORD   one of FAILURES, after ``at=STEP`` steps (0), the first ``times=N``
                times that this prompt is run (always)

``FAKE_MAX_IMAGES=16`` lets requests have that many input pictures, and
``FAKE_KEEP_ALIVE=0.5`` has silent streams show a sign of life that often.
``FAKE_LOAD=FILE`` has loading do what the file says: ``hold`` until it says something
else, ``fail`` as with damaged weights, ``room`` is needed beside an older worker; once
it is loaded, ``outage`` is one.
``FAKE_MEMORY=6,24`` is the device's memory, used and in all, in GiB.
``GET /fake/stats`` tells what came in and was done, ``POST /fake/reset`` forgets it.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

from flask import Flask, jsonify
from PIL import Image

from flux_api import create_app
from flux_api.core import ImageResult, LoadingProgress, Preview
from flux_api.errors import (
    ContentFiltered,
    DeadlineExceeded,
    InsufficientStorage,
    PipelineFailed,
    Unavailable,
)
from flux_api.factory import new_manager
from flux_api.http import clients
from flux_api.queue.tasks import BackendBroken
from flux_api.settings import Settings

FAILURES = {
    "unexpected": lambda: RuntimeError("secret detail of a library"),
    "pipeline": lambda: PipelineFailed("The model made no usable picture."),
    "busy": lambda: Unavailable("The device is short of memory.", retry_after=1),
    "deadline": lambda: DeadlineExceeded("The pipeline made no progress."),
    "broken": lambda: BackendBroken("illegal memory access"),
    "host_memory": MemoryError,
    "descriptors": lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    "disk": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "threads": lambda: RuntimeError("can't start new thread"),
    "filtered": lambda: ContentFiltered("The content filter refused this picture."),
    "memory": lambda: InsufficientStorage("This picture is too large for the memory."),
}


LOAD = Path(os.environ["FAKE_LOAD"]) if os.environ.get("FAKE_LOAD") else None

# While it is there, "held" pictures wait: an old worker can be told nothing any more.
HELD = Path(os.environ.get("FAKE_HELD") or "/nowhere")

# How many pictures may take turns beside those in the slots.
EXTRA = int(os.environ.get("FAKE_EXTRA") or 0)


SIZES = [
    int(size) << 30 for size in os.environ.get("FAKE_MEMORY", "").split(",") if size
]


class FakeBackend:
    """Pictures of one colour, made in as many empty steps as a model needs."""

    memory = dict(zip(("used", "total"), SIZES, strict=True)) if SIZES else None
    performance = {"performance": "exact"}
    slots = int(os.environ.get("FAKE_SLOTS") or 1)

    def __init__(self):
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.failed = {}
        self.reset()

    def reset(self):
        """Forget what was done and let go what is held."""
        self.released.set()
        with self.lock:
            self.failed.clear()
            self.stats = {"begun": 0, "finished": 0, "steps": 0, "requests": []}
        self.released = threading.Event()

    def load(self, report):
        report(LoadingProgress("loading nothing", 1, 4, "components"))
        if not LOAD:
            return
        while LOAD.read_text() == "hold":
            time.sleep(0.02)
        if LOAD.read_text() == "fail":
            raise Unavailable("the weights of fake are damaged")
        if LOAD.read_text() == "room" and self.manager.handover.beside:
            report("no room for both")
            while not self.manager.handover.make_room(0.1):
                report("no room for both")

    @property
    def outage(self):
        return "waiting for a card" if LOAD and LOAD.read_text() == "outage" else None

    asleep = None

    def sleep(self, kept=None):
        self.asleep = kept or "host"
        with self.lock:
            self.stats["sleeps"] = self.stats.get("sleeps", 0) + 1

    def joins(self, request, running):
        return len(running) < self.slots + EXTRA

    def fits(self, request, running):
        return len(running) < self.slots

    def tokens(self, request):
        return 1

    def prepare(self, request):
        if "unprepared" in request.prompt:
            raise Unavailable("The request cannot be prepared.", retry_after=1)

    def is_warm(self, request):
        return True

    def run(self, picture, callbacks):
        """One picture; its colour follows from the seed."""
        request = picture.request
        words = dict(re.findall(r"(\w+)=([\w.]+)", request.prompt))
        self.asleep = None
        self._note(picture)
        for step in range(request.total_steps):
            self._fail(request.prompt, words, step)
            self._hold(callbacks, request.prompt)
            time.sleep(float(words.get("pause", 0)))
            callbacks.on_step(step + 1, request.total_steps)
            self._preview(request, step, callbacks)
            with self.lock:
                self.stats["steps"] += 1
        with self.lock:
            self.stats["finished"] += 1
        seed = picture.seed
        color = (seed % 256, seed // 256 % 256, 99)
        return ImageResult(
            Image.new("RGB", (request.width, request.height), color), seed
        )

    def _note(self, picture):
        request = picture.request
        facts = {
            "at": time.monotonic(),
            "mode": request.mode,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "size": [request.width, request.height],
            "images": [list(image.size) for image in request.images],
            "corners": [image.getpixel((0, 0)) for image in request.images],
            "mask": request.mask_image and request.mask_image.getextrema(),
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "seed": picture.seed,
            "n": request.num_images_per_prompt,
            "partial_images": request.partial_images,
            "loras": [[lora.name, lora.adapter_weight] for lora in request.loras],
            "caller": self.manager.find(picture.job_id).caller,
        }
        with self.lock:
            self.stats["begun"] += 1
            self.stats["requests"].append(facts)

    def _fail(self, prompt, words, step):
        if words.get("fail") and step == int(words.get("at", 0)):
            with self.lock:
                count = self.failed[prompt] = self.failed.get(prompt, 0) + 1
            if count <= int(words.get("times", 1_000_000)):
                raise FAILURES[words["fail"]]()

    def _hold(self, callbacks, prompt):
        if "hang" in prompt.split():
            threading.Event().wait()
        if "hold" in prompt.split():
            released = self.released
            while not released.wait(0.02):
                callbacks.check()
        while "held" in prompt.split() and HELD.exists():
            callbacks.check()
            time.sleep(0.02)

    def _preview(self, request, step, callbacks):
        wanted, total = request.partial_images, request.total_steps
        due = {total * (i + 1) // (wanted + 1) for i in range(wanted)}
        if step in due:
            number = sorted(due).index(step)
            preview = Image.new("RGB", (64, 64), (50 * number, 0, 200))
            callbacks.on_preview(number, Preview(preview, None, preview.size))


def take_references(app, most):
    """Let every task take ``most`` input pictures."""
    context = app.extensions["flux_api"]
    models = {
        name: replace(
            info,
            tasks={k: replace(task, max_images=most) for k, task in info.tasks.items()},
        )
        for name, info in context.models.items()
    }
    app.extensions["flux_api"] = replace(context, models=models)


def make_app() -> Flask:
    """The whole API over one FakeBackend, and the routes that tell of it."""
    backend = FakeBackend()
    settings = Settings.from_env(os.environ)
    manager = new_manager(settings, lambda: backend, lambda: LOAD and LOAD.read_text())
    backend.manager = manager
    app = create_app(settings, manager=manager)
    if seconds := os.environ.get("FAKE_KEEP_ALIVE"):
        clients.KEEP_ALIVE_SECONDS = float(seconds)
    if most := os.environ.get("FAKE_MAX_IMAGES"):
        take_references(app, int(most))
    arrived = []
    answer = app.wsgi_app

    def note_and_answer(environ, start_response):
        if not environ["PATH_INFO"].startswith(("/fake/", "/readyz", "/healthz")):
            headers = {k[5:]: v for k, v in environ.items() if k.startswith("HTTP_")}
            arrived.append([environ["PATH_INFO"], headers])
        return answer(environ, start_response)

    app.wsgi_app = note_and_answer

    @app.get("/fake/stats")
    def fake_stats():
        manager = app.extensions["flux_api"].manager
        now = {"running": manager.running, "queued": manager.queue_depth}
        with backend.lock:
            told = now | {"arrived": arrived, "pid": os.getpid()}
            return jsonify(backend.stats | told)

    @app.post("/fake/release")
    def fake_release():
        backend.released.set()
        return {}

    @app.post("/fake/reset")
    def fake_reset():
        backend.reset()
        arrived.clear()
        return {}

    return app


app = make_app()
