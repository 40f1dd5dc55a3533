"""Clients that know what each picture must be, and note what they got instead."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from PIL import Image

SECONDS = 60.0
PROMPTS = ("a red heart", "a cat", "a blue car")
SEEDS = (1, 2, 3)
# (kind, prompt, seed)
Request = tuple[str, str, int]
# Asks by that session, at that address; gives the picture's digest.
Kind = Callable[[requests.Session, str, Request], str]


@dataclass(frozen=True)
class Note:
    """What came of a request: "right", "refused", "lost" or "wrong", when, and why."""

    outcome: str
    when: float
    why: str = ""
    began: float = 0.0


class Lost(Exception):
    """No picture, and no refusal that says when to come again."""


class Refused(Exception):
    """429 or 503 with Retry-After."""


class Load:
    """``clients`` at once that ask for ``kinds``; ``notes`` grows while they run."""

    def __init__(self, url: str, clients: int, kinds: Mapping[str, Kind]) -> None:
        self.notes: list[Note] = []
        self.expected: dict[Request, str] = {}
        self.checked: set[Path] = set()
        self._url, self._clients, self._kinds = url, clients, kinds
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def learn(self, prompts: Sequence[str] = PROMPTS) -> None:
        """Ask for each picture once, while nothing is broken."""
        with requests.Session() as session:
            for wanted in itertools.product(self._kinds, prompts, SEEDS):
                made = self._kinds[wanted[0]](session, self._url, wanted)
                self.expected[wanted] = made

    def start(self) -> None:
        """Let the clients ask until :meth:`stop`."""
        for number in range(self._clients):
            thread = threading.Thread(target=self._run, args=(random.Random(number),))
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Returns when the last answers have come."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                self._ask(session, chance.choice(list(self.expected)))

    def _ask(self, session: requests.Session, wanted: Request) -> None:
        began = time.monotonic()
        try:
            found = self._kinds[wanted[0]](session, self._url, wanted)
            outcome, why = "right", ""
            if found != self.expected[wanted]:
                outcome, why = "wrong", str(wanted)
        except Refused as error:
            outcome, why = "refused", str(error)
        except (Lost, requests.RequestException) as error:
            outcome, why = "lost", f"{type(error).__name__}: {error}"
        self.notes.append(Note(outcome, time.monotonic(), why, began))
        if outcome != "right":
            time.sleep(0.2)


def stored_half(folder: Path, known: set[str], checked: set[Path]) -> int:
    """How many stored files, but those ``checked`` before, are no whole picture among
    ``known``."""
    bad = 0
    for path in set(folder.rglob("*.png")) - checked:
        checked.add(path)
        try:
            bad += digest(path.read_bytes()) not in known
        except OSError:  # Pillow's word for what is cut off
            bad += 1
    return bad


def digest(data: bytes) -> str:
    """A picture's pixels in a word: text in the file names the job."""
    image = Image.open(io.BytesIO(data))
    pixels = image.convert("RGB").tobytes()
    return hashlib.sha256(f"{image.size}".encode() + pixels).hexdigest()


def _stored(session: requests.Session, url: str, wanted: Request) -> str:
    """By the original API; the picture is fetched from the file server."""
    answer = checked_answer(
        session.post(f"{url}/process", data=form_of(wanted), timeout=SECONDS)
    )
    return delivered(session, url, answer.json())


def _raw(session: requests.Session, url: str, wanted: Request) -> str:
    """The bytes themselves."""
    form = form_of(wanted)
    answer = session.post(f"{url}/process/raw", data=form, timeout=SECONDS)
    return digest(checked_answer(answer).content)


def _edited(session: requests.Session, url: str, wanted: Request) -> str:
    """An edit: a picture goes in, too."""
    answer = session.post(
        f"{url}/process",
        data=form_of(wanted),
        files={"input_file": PICTURE},
        timeout=SECONDS,
    )
    return delivered(session, url, checked_answer(answer).json())


def _openai(session: requests.Session, url: str, wanted: Request) -> str:
    """By OpenAI's API, in Base64."""
    _, prompt, seed = wanted
    body = {"prompt": prompt, "seed": seed, "size": "64x64", "steps": 2}
    body["response_format"] = "b64_json"
    answer = session.post(f"{url}/v1/images/generations", json=body, timeout=SECONDS)
    return digest(
        base64.b64decode(checked_answer(answer).json()["data"][0]["b64_json"])
    )


KINDS: dict[str, Kind] = {
    "stored": _stored,
    "raw": _raw,
    "edited": _edited,
    "openai": _openai,
}


def form_of(wanted: Request) -> dict[str, Any]:
    """The fields of a small picture."""
    _, prompt, seed = wanted
    small = {"width": 64, "height": 64, "num_inference_steps": 2}
    return {"prompt": prompt, "seed": seed} | small


def checked_answer(answer: requests.Response) -> requests.Response:
    """``answer``; Refused or Lost where it leads to no picture."""
    if answer.status_code in (429, 503) and answer.headers.get("Retry-After"):
        raise Refused(answer.text[:120])
    if not answer.ok:
        raise Lost(f"{answer.status_code} {answer.text[:120]}")
    return answer


def delivered(session: requests.Session, url: str, answer: dict[str, Any]) -> str:
    """The picture of an answer: by its URL as soon as the file server gives it, else,
    where it could not be stored, in the answer."""
    if "result_image_url" not in answer:
        return digest(base64.b64decode(answer["result_image_base64"]))
    until = time.monotonic() + SECONDS
    while True:
        try:
            found = session.get(answer["result_image_url"], timeout=SECONDS)
            return digest(checked_answer(found).content)
        except (Refused, requests.RequestException):
            if time.monotonic() > until:
                raise Lost("the stored picture is not to be had") from None
            time.sleep(0.2)


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((96, 96)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = _picture()
