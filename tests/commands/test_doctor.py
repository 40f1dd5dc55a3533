"""The operator's commands, and a server whose models are on a Hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import requests
import torch

from flux_api.commands import doctor_memory
from flux_api.commands.doctor import examine
from flux_api.images.decode_child import MEMORY_BYTES
from flux_api.images.recipe import read_recipe
from flux_api.models import hub as hub_files
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.hub import draw_bar
from flux_api.models.sources import Repository
from flux_api.settings import Settings
from tests.commands.program import terminal
from tests.support.credentials import make_certificates
from tests.support.fake_hub import Hub, hub_settings, run_hub
from tests.support.servers import QUIET, ROOT, run_api, wait_for
from tests.support.tiny_checkpoints import build

# One that is sold with each size, in GB.
CARDS = {
    **{"RTX 2060": 6, "RTX 4060": 8, "RTX 3080": 10, "RTX 4070": 12, "RTX 4080": 16},
    **{"RTX 4090": 24, "RTX 5090": 32, "L40S": 48, "H100": 80, "H200": 141},
}
SETS = """
[served]
like = "schnell"
base_model = "maker/served"

[locked]
like = "schnell"
base_model = "maker/locked"

[lost]
like = "schnell"
base_model = "maker/lost"
"""


def run(*arguments, **settings):
    """``python -m flux_api`` to its end."""
    env = os.environ | QUIET | {name: str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "flux_api", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with one open repository and one that is gated."""
    folder = build("schnell", tmp_path_factory.mktemp("hub") / "schnell")
    (folder / "transformer" / "pickle.bin").write_bytes(b"never fetched")
    (folder / "single-file.safetensors").write_bytes(b"nor this")
    # Longer than what the client writes at once, so that half of it counts.
    (folder / "vae" / "long.safetensors").write_bytes(bytes(24 << 20))
    return Hub({"maker/served": folder, "maker/locked": folder}, ["maker/locked"])


@pytest.fixture(scope="module")
def settings(hub, tmp_path_factory):
    """The environment of a machine whose Hub is ours."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "models.toml").write_text(SETS)
    with run_hub(hub) as url:
        yield {
            **hub_settings(url, folder),
            "MODEL_INFO": folder / "models.toml",
        }


def test_fetch_downloads_continues_and_is_done_the_second_time(hub, settings):
    hub.cut = "vae/long"
    with terminal(ROOT, "fetch", "served", **settings) as shown:
        # It is seen while it goes on, and in one line.
        bar = shown.read_until(r"\r\x1b\[Kdownloading maker/served: \[#+-+\]")
        assert "licence: not stated" in shown.text[: bar.start()]
        hub.may_break.set()
        assert shown.wait() == 0, shown.text
        assert "\nserved: complete" in shown.text
        assert "\n" not in shown.text[bar.start() :].partition("\r\n")[0]
    # The broken file went on where it had stopped.
    asked = [asked for path, asked in hub.ranges if path == "vae/long.safetensors"]
    assert asked and asked[-1] != "bytes=0-"
    assert not any(
        name.endswith((".bin", "single-file.safetensors")) for name in hub.served
    )
    hub.served.clear()
    assert run("fetch", "served", **settings).returncode == 0
    assert run("fetch", "served", **settings | {"HF_HUB_OFFLINE": 1}).returncode == 0
    assert not hub.served


def test_a_gated_model_gives_the_page_to_visit(settings):
    refused = run("fetch", "locked", **settings)
    assert refused.returncode == 1
    assert "https://huggingface.co/maker/locked" in refused.stderr
    assert "HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_unknown_sets_and_repositories_are_named(settings):
    unknown = run("fetch", "nobody", **settings)
    assert unknown.returncode == 2 and "klein-4b" in unknown.stderr
    slip = run("fetch", "serveed", **settings)
    assert slip.returncode == 2 and "Did you mean 'served'?" in slip.stderr
    lost = run("fetch", "lost", **settings)
    assert lost.returncode == 1 and "maker/lost" in lost.stderr
    assert "Traceback" not in lost.stderr


def test_a_server_names_the_page_and_goes_on_once_it_may(hub, settings, tmp_path):
    with run_api(FLUX_MODEL="locked", **settings | {"HF_HOME": tmp_path}) as server:
        wait_for(lambda: "failed" in reason(server), 60, server)
        assert "https://huggingface.co/maker/locked" in reason(server)
        url = f"{server.url}/v1/images/generations"
        values = {"prompt": "a duck", "size": "64x64"}
        assert requests.post(url, json=values, timeout=60).status_code == 503
        hub.gated.clear()  # the licence was accepted
        server.wait_ready()
        assert requests.post(url, json=values, timeout=60).status_code == 200


def reason(server):
    """Why the server is not ready."""
    return requests.get(f"{server.url}/readyz", timeout=5).json().get("reason", "")


def test_doctor_without_a_gpu_recommends_tiny_and_says_what_one_would_bring(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "hub").mkdir()
    with (tmp_path / "hub" / "weights").open("wb") as file:
        file.truncate(3 << 30)
    # As the Hub's cache does: what is there once is counted once.
    (tmp_path / "hub" / "link").symlink_to("weights")
    report = run("doctor", HF_HOME=tmp_path)
    assert report.returncode == 0, report.stderr
    text = report.stdout
    assert "GPU      none" in text
    assert "Recommended here: FLUX_MODEL=tiny" in text
    assert "FLUX_MODEL=klein-4b: 6 GB" in text.split("An NVIDIA GPU would bring")[1]
    needs = re.findall("needs a GPU: (.+)", text)
    assert len(needs) == len(MODEL_INFO) - 1
    assert set(map(int, re.findall(r"(\d+) GB \(", text))) <= set(CARDS.values())
    for told in needs:
        # What does, and what leaves nothing to be wished for: no other cards.
        small, large = told.split(", better ")
        assert "quantization none, offload none" in large
        assert "quantization none, offload none" not in small
        assert all(0 < int(n) < 128 for n in re.findall(r"(\d+) GiB of RAM", told))
    for name, info in MODEL_INFO.items():
        assert f"\n  {name}: " in text
        assert info.licence in text
    for part in ("driver", "memory", "cache", "disk", "token"):
        assert part in text
    assert "; HF_HUB_OFFLINE is set" in text
    assert f"{tmp_path}/hub, 3.0 GiB in it" in text
    free = float(re.search(r"memory +([\d.]+) GiB free", text)[1])
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free < all_of_it / 2**30
    # Published: 3.9, 4.0 and 0.1 thousand million weights of two bytes.
    klein = text.split("\n  klein-4b: ")[1].split("weights ")[1]
    origin = "black-forest-labs/FLUX.2-klein-4B"
    line = f"14.9 GiB in bfloat16; downloads about 15 GiB from {origin}\n"
    assert klein.startswith(line)
    # A CPU draws in float32, and its files are half of that.
    tiny = text.split("\n  tiny: ")[1].partition("\n  klein-4b")[0]
    files = (ROOT / "models" / "tiny").rglob("*/*.safetensors")
    size = sum(file.stat().st_size for file in files) / 2**30
    told = float(re.search(r"runs here on the CPU, ([\d.]+) GiB", tiny)[1])
    assert told == pytest.approx(2 * size, abs=0.01) and "nothing to download" in tiny
    free = float(re.search(r"disk +([\d.]+) GiB free", text)[1])
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free / 2**30, rel=0.2)


def memory_bounds(report):
    """The MiB of each line on memory beside the weights, and their sum."""
    _, _, rest = report.partition("Memory beside the weights, at most\n")
    lines = rest.partition("\n\n")[0].splitlines()
    *parts, total = [int(line.split()[0].replace(",", "")) for line in lines]
    return parts, total


def threads_of(settings):
    """How many gunicorn starts."""
    code = "import runpy; print(runpy.run_path('gunicorn.conf.py')['threads'])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in settings.items()},
        capture_output=True,
        check=True,
    )
    return int(told.stdout)


def test_doctor_adds_up_the_memory_that_the_settings_allow(doctor, tmp_path):
    given = {
        "FLUX_MAX_UPLOAD_MB": 3,
        "FLUX_MAX_QUEUE": 5,
        "FLUX_MAX_WATCHERS": 7,
        "FLUX_DECODED_MB": 65,
        "FLUX_RESULTS_MB": 11,
        "FLUX_PROMPT_CACHE_MB": 13,
        "FLUX_LORA_CACHE_MB": 117,
        "FLUX_MAX_LOADED": 2,
        **make_certificates(tmp_path)[0],
    }
    report = doctor(**given)
    assert report.returncode == 0, report.stderr
    bounds, total = memory_bounds(report.stdout)
    bodies = 3 * threads_of(given)
    decoding = signing = 2 * MEMORY_BYTES >> 20
    assert bounds == [bodies, 65, decoding, signing, 11, 13, 2 * 16, 2 * 117, 0]
    assert total == sum(bounds)
    # Where LoRAs are fused, copies of the weights are kept; where nothing is signed, no
    # process does.
    del given["FLUX_C2PA_CERT"], given["FLUX_C2PA_KEY"]
    report = doctor(**given, FLUX_PERFORMANCE="speed")
    *others, copies = memory_bounds(report.stdout)[0]
    bounds[3] = 0
    assert others == bounds[:-1]
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    assert 1 < copies <= all_of_it / 2
    # A cluster makes more pictures at once.
    cluster = {"FLUX_BACKEND": "ray", "FLUX_MAX_UPLOAD_MB": "3"}
    bodies, *_ = doctor_memory.memory_bounds(Settings.from_env(cluster)).values()
    assert bodies == threads_of(cluster) * 3 << 20


def test_doctor_says_what_fits_a_gpu(monkeypatch):
    from flux_api.commands import doctor
    from flux_api.loading.footprint import GIB
    from flux_api.loading.plan import Machine

    machine = Machine(16 * GIB, 24 * GIB, "A Card")
    monkeypatch.setattr(doctor, "choose_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(doctor, "look_at_machine", lambda _: machine)
    monkeypatch.setattr(doctor, "_machine_lines", lambda *_: ["  GPU  A Card"])
    text = examine(MODEL_INFO)
    models = text.split("\nModels\n")[1]
    klein = models.split("klein-4b: ")[1].split("\n")[1]
    assert "fits with quantization none, offload text" in klein
    assert "does not fit" in models.split("flux2-dev: ")[1].split("\n")[1]
    assert "Recommended here: FLUX_MODEL=klein-4b" in text
    fitting = re.findall(r"^  (\S+): .+\n    fits with", models, re.M)
    # No model's plan takes more than a workstation has.
    needs = [float(n) for n in re.findall(r"([\d.]+) GiB of RAM", models)]
    assert len(needs) == len(MODEL_INFO) and 1 < max(needs) < 256
    # The demo is nobody's choice who has a card.
    assert fitting[0] == "tiny" and 1 < len(fitting) < len(MODEL_INFO)
    assert text.endswith(f"These fit: {', '.join(fitting[1:])}.")
    # FLUX.2 is computed in twice as many bytes where there is no bfloat16.
    machine = Machine(20 * GIB, 24 * GIB, "An Older Card", bfloat16=False)
    klein = {"klein-4b": MODEL_INFO["klein-4b"]}
    [line] = [line for line in examine(klein).splitlines() if "fits with" in line]
    assert "quantization nf4" in line
    assert line[2:] in doctor.examine_model("klein-4b", *klein.values(), None)
    machine = Machine(GIB, 24 * GIB, "A Card")
    text = examine({name: MODEL_INFO[name] for name in ("tiny", "klein-4b")})
    assert text.endswith("FLUX_MODEL=tiny; the GPU has too little memory free.")


def test_a_set_stays_at_the_commit_that_was_downloaded(tmp_path, settings, hub):
    settings = settings | {"HF_HOME": tmp_path, "FLUX_MODEL": "served"}
    lock = tmp_path / "hub" / "hub.lock.json"

    def commits():
        return {path.name for path in lock.parent.glob("models--*/snapshots/*")}

    assert run("fetch", "served", **settings).returncode == 0
    first = hub.sha
    assert json.loads(lock.read_text()) == {"maker/served@main": first}
    hub.sha = "f" * 40
    assert run("fetch", "served", **settings).returncode == 0
    assert commits() == {first}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        [model] = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][:1]
        assert (model["id"], model["revision"]) == ("served", first)
        body = {"prompt": "a cat"}
        url = f"{server.wait_ready().url}/process/raw"
        made = requests.post(url, json=body, timeout=60)
        assert read_recipe(made.content)["revision"] == first
    assert run("fetch", "--update", "served", **settings).returncode == 0
    assert json.loads(lock.read_text()) == {"maker/served@main": "f" * 40}
    assert commits() == {first, "f" * 40}
    hub.sha = first


@pytest.mark.parametrize(
    "lines",
    ['base_model = "maker/served@v2"', 'base_model = "maker/served"\nrevision = "v2"'],
    ids=["in one", "apart"],
)
def test_a_set_may_name_its_branch_or_tag(tmp_path, settings, hub, lines):
    models = tmp_path / "models.toml"
    models.write_text(f'[served]\nlike = "schnell"\n{lines}\n')
    own = settings | {"HF_HOME": tmp_path, "MODEL_INFO": models}
    hub.revisions.clear()
    assert run("fetch", "served", **own).returncode == 0
    assert set(hub.revisions) == {"v2"}
    lock = tmp_path / "hub" / "hub.lock.json"
    assert json.loads(lock.read_text()) == {"maker/served@v2": hub.sha}


def test_doctor_judges_by_a_card_that_is_not_here(doctor):
    text = doctor("--gpu", "24").stdout
    assert text.startswith("Models on a 24 GB GPU")
    klein = text.split("klein-4b: ")[1].split("\n")[1]
    assert "fits with quantization none, offload none" in klein
    assert "does not fit" not in klein


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "1e300", "16GB"])
def test_a_card_of_no_size_is_refused(doctor, size):
    refused = doctor(f"--gpu={size}")
    assert refused.returncode == 2
    assert f"expected a number of GB, got '{size}'" in refused.stderr


def test_a_wrong_setting_is_said_where_it_disturbs_no_pipe(doctor):
    refused = doctor(FLUX_MAX_QUEUE="many")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "FLUX_MAX_QUEUE='many'" in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("FLUX_MODEL", "klein4b", "Did you mean 'klein-4b'?"),
        ("FLUX_MODELS", "tiny,klien-4b", "Did you mean 'klein-4b'?"),
        ("FLUX_BFL_MODELS", "flux-dev=nosuch", "one of tiny,"),
        ("FLUX_FILTER", "my_missing:f", "No module named 'my_missing'"),
        ("FLUX_C2PA_CERT", "/etc/hostname", "FLUX_C2PA_KEY is not set"),
    ],
)
def test_what_would_stop_a_start_is_said_before_one(doctor, name, value, why):
    refused = doctor(**{name: value})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"flux-api: {name.partition('_C2PA')[0]}")
    assert why in refused.stderr
    # A card that is not here says nothing of this machine's settings.
    assert doctor("--gpu", "24", **{name: value}).returncode == 0


def test_a_filter_beside_the_service_is_found_as_the_server_finds_it(tmp_path):
    (tmp_path / "beside.py").write_text("def review(prompt, image): ...")
    # Not what 'python -m' does by itself, as the installed program has no such path.
    code = "import sys; from flux_api.__main__ import main; sys.path.remove(''); main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor"],
        cwd=tmp_path,
        env=os.environ | QUIET | {"PYTHONPATH": ROOT, "FLUX_FILTER": "beside:review"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_warns_of_names_that_are_no_settings(doctor):
    report = doctor(FLUX_MODLE="tiny", FLUX_SERVER="http://localhost:8000")
    assert report.returncode == 0 and "Recommended here" in report.stdout
    assert report.stderr == (
        "flux-api: FLUX_MODLE is set, but there is no such setting; did you mean "
        "FLUX_MODEL?\n"
    )


def test_fetch_goes_on_after_a_set_that_cannot_be_had(settings):
    both = run("fetch", "lost", "served", **settings)
    assert both.returncode == 1
    assert "maker/lost" in both.stderr
    assert "served: complete" in both.stdout


def test_no_model_is_called_free_that_may_not_be(doctor, tmp_path):
    (tmp_path / "m.toml").write_text(
        "[mine]\nlike = 'klein-4b'\nbase_model = 'black-forest-labs/FLUX.2-klein-9B'\n"
        "[part]\nlike = 'schnell'\n"
        "tasks.edit.base_model = 'black-forest-labs/FLUX.1-dev'\n"
        "[klein-4b]\nbase_model = 'me/other'\n"
    )
    text = doctor(MODEL_INFO=tmp_path / "m.toml").stdout
    assert "\n  klein-4b: not downloaded" in text
    alone = doctor("klein-4b", MODEL_INFO=tmp_path / "m.toml").stdout
    assert alone.startswith("klein-4b: not downloaded, and its size is not known")
    for name in ("mine", "part"):
        about = text.partition(f"\n  {name}: ")[2]
        licence = about.partition("    licence ")[2].partition("\n")[0]
        assert licence == "not stated, see the model's page"


def test_a_download_is_told_in_bytes(monkeypatch, tmp_path):
    def download(*_, tqdm_class, **__):
        bar = tqdm_class(unit="B", total=2**30)
        bar.update(2**29)
        return str(tmp_path)

    monkeypatch.setattr(hub_files, "_SAY_SECONDS", -1.0)
    monkeypatch.setattr(hub_files, "snapshot_download", download)
    told = []
    hub_files.fetch_files(Repository("maker/none"), ["*"], told.append)
    [progress] = told
    assert progress.startswith("downloading maker/none: [")
    assert (progress.done, progress.total, progress.unit) == (2**29, 2**30, "bytes")


def test_a_bar_shows_the_share():
    assert draw_bar(2**29, 2**30) == "[##########----------] 50% of 1.00 GiB"
