"""Who may import whom: the rooms of flux_api, and where foreign libraries appear."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.servers import ROOT

TOP = {"core", "errors"}
# Room -> the rooms it may import, besides `core` and `errors` at the top.
ROOMS = {
    "__init__": {"factory"},
    "factory": {
        *("blueprints", "http", "queue", "engine", "loading", "models", "net"),
        "cluster",
        "images",
        *("settings", "setting_values", "api_keys"),
    },
    "__main__": {"commands"},
    "blueprints": {"http", "queue", "models", "images", "metrics"},
    "http": {"queue", "models", "net", "images", "settings", "api_keys", "metrics"},
    "queue": {"metrics"},
    "cluster": {"queue", "models"},
    "net": {"images", "metrics"},
    "engine": {"loading", "queue", "models", "images", "settings", "metrics"},
    "loading": {"models", "settings", "metrics"},
    "models": {"settings"},
    "metrics": set(),
    "images": set(),
    # Without a server the application runs in the command's own process.
    "commands": {
        *("loading", "models", "images", "settings", "api_keys"),
        *("factory", "cluster"),
    },
    "settings": {"setting_values", "api_keys"},
    "setting_values": {"api_keys"},
    "api_keys": set(),
    "core": set(),
    "errors": set(),
}
# Within a room only these modules of another are its face.
FACES = {
    ("blueprints", "queue"): {"jobs", "results"},
    ("engine", "images"): {"fitting"},
}
HEAVY = {"engine", "loading", "commands", "factory"}
FOREIGN = {
    "torch": HEAVY,
    "diffusers": HEAVY,
    "transformers": HEAVY,
    "peft": set(),
    "huggingface_hub": {"models", "commands"},
    "bitsandbytes": HEAVY,
    "gguf": HEAVY,
    "flask": {"blueprints", "http", "factory"},
    "werkzeug": {"blueprints", "http", "factory"},
    "PIL": {"images", "engine", "loading", "core", "http", "blueprints"} | {"commands"},
    "requests": set(),
    "urllib3": {"net", "commands"},
    "prometheus_client": {"metrics", "blueprints"},
    "ray": {"cluster"},
    "socket": {"net", "http", "blueprints", "commands"},
    "http.client": {"net"},
    "ssl": {"net"},
    "c2pa": {"images"},
    "cryptography": {"images", "commands"},
}


def room_of(path):
    """The package below flux_api, or the module that stands at its top."""
    return path.relative_to(ROOT / "flux_api").parts[0].removesuffix(".py")


def imports(path, *, also_types):
    """What the module imports, by full name; under ``TYPE_CHECKING`` on demand."""
    tree = ast.parse(path.read_text())
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            hidden |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in hidden and not also_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def broken_rules(path, found):
    """The imports among ``found`` that the module at ``path`` may not have."""
    room = room_of(path)
    for name in found:
        parts = name.split(".")
        if parts[0] == "flux_api":
            other = parts[1]
            if other == room or other in TOP:
                continue
            face = FACES.get((room, other))
            if other not in ROOMS[room] or (face and parts[2] not in face):
                yield name
        for library, rooms in FOREIGN.items():
            if f"{name}.".startswith(f"{library}.") and room not in rooms:
                yield name


MODULES = sorted((ROOT / "flux_api").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_import_is_in_the_table(path):
    own = [n for n in imports(path, also_types=True) if n.startswith("flux_api.")]
    others = [n for n in imports(path, also_types=False) if n not in own]
    assert list(broken_rules(path, own + others)) == []
    assert "\nfrom ." not in path.read_text()


def test_every_room_is_in_the_table_and_the_reverse():
    assert {room_of(path) for path in MODULES} == set(ROOMS)


def test_few_modules_lie_directly_in_the_package():
    assert len(list((ROOT / "flux_api").glob("*.py"))) <= 8


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("queue/manager.py", "torch"),
        ("queue/manager.py", "flux_api.http.context.Context"),
        ("models/info.py", "flux_api.loading.memory.plan_memory"),
        ("blueprints/original.py", "flux_api.queue.manager.PipelineManager"),
        ("images/codec.py", "flask.request"),
        ("http/access.py", "urllib3.PoolManager"),
        ("commands/deploy.py", "ray.serve"),
    ],
)
def test_a_forbidden_import_is_noticed(module, name):
    assert list(broken_rules(ROOT / "flux_api" / module, [name])) == [name]


def test_the_server_and_its_file_server_never_import_each_other():
    for package, other in (("flux_api", "file_server"), ("file_server", "flux_api")):
        for path in (ROOT / package).rglob("*.py"):
            found = imports(path, also_types=True)
            assert not [n for n in found if n.split(".")[0] == other], path


def test_the_drawn_picture_is_of_this_table():
    from scripts.draw_rooms import OUT, PLACES, WAY, draw

    assert OUT.read_text("utf-8") == draw()
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for call, file, _ in WAY:
        assert re.search(rf"{re.escape(call)} +{file}", text), call
    rooms = {path.parent.name for path in (ROOT / "flux_api").glob("*/*.py")}
    assert rooms <= set(PLACES)
