"""``fetch`` for a modular set: its index may name components of other repositories."""

from __future__ import annotations

import json

from tests.commands.test_doctor import run
from tests.support.fake_hub import Hub, hub_settings, run_hub

SETS = """
[mixed]
like = "flux3-klein"
base_model = "{folder}"
"""


def component(repository, folder):
    """The entry of a component in the index."""
    spec = {"pretrained_model_name_or_path": repository, "subfolder": folder}
    return ["diffusers", "Any", spec]


def test_components_come_from_where_the_index_says(tmp_path):
    local, parts = tmp_path / "local", tmp_path / "parts"
    for folder in (local / "transformer", parts / "vae", parts / "transformer"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    index = {
        # Saved on another machine: what lies beside the index counts.
        "transformer": component("maker/parts", "transformer"),
        "vae": component("maker/parts", "vae"),
    }
    (local / "modular_model_index.json").write_text(json.dumps(index))
    (tmp_path / "models.toml").write_text(SETS.format(folder=local))
    hub = Hub({"maker/parts": parts})
    with run_hub(hub) as url:
        done = run(
            *("fetch", "mixed"),
            MODEL_INFO=tmp_path / "models.toml",
            **hub_settings(url, tmp_path / "home"),
        )
    assert done.returncode == 0, done.stderr
    assert "mixed: complete" in done.stdout
    assert set(hub.served) == {"maker/parts/vae/config.json"}
