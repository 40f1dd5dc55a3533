"""``python -m scripts.check_image``: the Dockerfile without a container engine.

Runs its RUN lines in their order in an empty Debian, copies what it copies, measures
the result, and starts its command in it, as its user, with everything read-only but
volumes and /tmp; a picture has to come. Needs root, debootstrap and some minutes. What
a build needs of this machine, packages say, it sees by ``--share FOLDER``; pip's
settings in the environment are passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 1_800_000_000
BUILD_TOOLS = ("cc", "gcc", "make", "pip", "pip3")
PASSED_ON = re.compile(r"PIP_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy")
_PORT = 8000


@dataclass
class Stage:
    """A root file system on its way, and what holds for the next line."""

    root: Path
    environ: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    folder: str = "/"
    user: str = "0"
    volumes: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def main() -> None:
    """Build, measure and start; the exit status is 1 where something is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "image")
    parser.add_argument("--share", action="append", default=[], metavar="PATH")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE"
    )
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.build_arg)
    options.work.mkdir(parents=True, exist_ok=True)
    stage = build(options.work, options.share, given)
    size = int(run(["du", "-sxB1", stage.root]).split()[0])
    print(f"{size / 1e6:.0f} MB", flush=True)
    found = [
        tool
        for tool in BUILD_TOOLS
        for place in stage.environ["PATH"].split(":")
        if (stage.root / place.lstrip("/") / tool).exists()
    ]
    if size > MOST_BYTES or found or stage.user in ("0", "root"):
        sys.exit(f"too large, run by root, or with build tools: {found}")
    start(stage)


def build(work: Path, share: list[str], given: dict[str, str]) -> Stage:
    """The last stage of the Dockerfile."""
    stages: dict[str, Stage] = {}
    known, stage = dict(given), None
    for word, rest in instructions((ROOT / "Dockerfile").read_text("utf-8")):
        print(f"{word} {rest[:70]}", flush=True)
        if word == "ARG":
            name, _, default = rest.partition("=")
            known[name] = given.get(name, default)
            if stage:
                stage.environ[name] = known[name]
        elif word == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = Stage(base(work, expand(image, known), name or "result"))
            stages[name] = stage
        else:
            assert stage is not None, "FROM comes first"
            follow(stage, word, rest, stages, share)
    assert stage is not None
    return stage


def follow(
    stage: Stage, word: str, rest: str, stages: dict[str, Stage], share: list[str]
) -> None:
    """Do what one line says. Those that a container engine alone needs are left."""
    match word:
        case "RUN":
            run_inside(stage, ["/bin/sh", "-euc", rest], share)
        case "COPY":
            copy(stage, shlex.split(rest), stages)
        case "ENV":
            pairs = (pair.split("=", 1) for pair in shlex.split(rest))
            new = {name: expand(value, stage.environ) for name, value in pairs}
            stage.environ |= new
        case "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "VOLUME":
            stage.volumes = json.loads(rest)
        case "CMD":
            stage.command = json.loads(rest)
        case "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        case "EXPOSE" | "SHELL":
            pass
        case _:
            raise ValueError(f"no way to follow {word}")


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with what is behind it, in one line."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*(#|$)", line)]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, rest in re.findall(r"(?m)^([A-Z]+) (.*)$", joined)]


def expand(text: str, values: dict[str, str]) -> str:
    """``text`` with its ``$NAME`` and ``${NAME}`` replaced."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], ""), text)


def base(work: Path, image: str, name: str) -> Path:
    """A fresh copy of Debian for a stage."""
    suite = image.removeprefix("debian:").removesuffix("-slim")
    clean = work / f"debian-{suite}"
    if not (clean / "complete").exists():
        shutil.rmtree(clean, ignore_errors=True)
        run(["debootstrap", "--variant=minbase", suite, clean])
        # As Debian's own slim images.
        for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(clean / folder, ignore_errors=True)
        for file in (clean / "var/cache/apt/archives").glob("*.deb"):
            file.unlink()
        (clean / "complete").touch()
    root = work / name
    shutil.rmtree(root, ignore_errors=True)
    run(["cp", "-a", clean, root])
    return root


def copy(stage: Stage, words: list[str], stages: dict[str, Stage]) -> None:
    """Files of the checkout as far as ``.dockerignore`` lets them, or of a stage."""
    *sources, target = words
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).partition("=")[2]].root
        run(["cp", "-a", origin / sources[0].lstrip("/"), stage.root / target[1:]])
        return
    to = stage.root / stage.folder.lstrip("/")
    wanted = [
        name.removeprefix("!")
        for name in (ROOT / ".dockerignore").read_text().split("\n")
        if name.startswith("!")
    ]
    for source in wanted if sources == ["."] else sources:
        for path in ROOT.glob(source):
            run(["cp", "-a", path, to])


def run_inside(stage: Stage, command: list[str], share: list[str]) -> None:
    """``command`` with the stage as its root, what is in ``share`` at the same place in
    it. The mounts are of one process, and end with it."""
    lines = []
    for path in (*share, "/proc", "/dev", "/sys"):
        inside = stage.root / path.lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        lines.append(f"mount --rbind {shlex.quote(path)} {shlex.quote(str(inside))}")
        if path in share:
            lines.append(f"mount -o remount,bind,ro {shlex.quote(str(inside))}")
    root, folder = shlex.quote(str(stage.root)), shlex.quote(stage.folder)
    inner = f"cd {folder} && exec {shlex.join(command)}"
    lines.append(f"exec chroot {root} /bin/sh -c {shlex.quote(inner)}")
    shutil.copy("/etc/resolv.conf", stage.root / "etc/resolv.conf")
    passed = {k: v for k, v in os.environ.items() if PASSED_ON.fullmatch(k)}
    subprocess.run(
        ["unshare", "--mount", "sh", "-euc", "\n".join(lines)],
        env=passed | stage.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        check=True,
    )


def start(stage: Stage) -> None:
    """The image's command as its user on a read-only root; one picture, then TERM."""
    root = shlex.quote(str(stage.root))
    lines = [f"mount --bind {root} {root}"]
    lines += [f"mount --rbind {p} {root}{p}" for p in ("/proc", "/dev", "/sys")]
    for place in (*stage.volumes, "/tmp"):
        owner = f"uid={stage.user},gid={stage.user},mode=1777"
        lines.append(f"mount -t tmpfs -o {owner} tmpfs {root}{place}")
    lines.append(f"mount -o remount,bind,ro {root}")
    user = f"{stage.user}:{stage.user}"
    command = shlex.join(["chroot", f"--userspec={user}", str(stage.root)])
    lines.append(f"exec {command} {shlex.join(stage.command)}")
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-euc", "\n".join(lines)],
        env={**stage.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        url = f"http://127.0.0.1:{_PORT}"
        until = time.monotonic() + 180
        while not answers(f"{url}/readyz"):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit("the image's command did not get ready")
            time.sleep(0.5)
        body = b"prompt=a+red+heart&seed=7"
        with urllib.request.urlopen(f"{url}/process/raw", body, 60) as answer:
            if answer.read(4) != b"\x89PNG":
                sys.exit("no picture came")
    finally:
        process.terminate()
        status = process.wait(60)
    print(f"a picture came; TERM ended it with {status}")
    if status:
        sys.exit(1)


def answers(url: str) -> bool:
    """Whether ``url`` says 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def run(command: list[str | Path]) -> str:
    """What the program prints; its failure is this one's."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
