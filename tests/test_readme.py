"""README: its commands work as they stand, and its tables tell the truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

import file_server.config
import flux_api.settings
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.known_words import knows, two_things
from tests.support.servers import ROOT, TOKEN

README = (ROOT / "README.md").read_text()
JAPANESE = (ROOT / "README.ja.md").read_text()


def code_blocks(text, language):
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def without_comments(block):
    """A block's lines that do something, without their comments."""
    lines = (re.sub(r"\s+# .*", "", line).rstrip() for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def settings(text):
    """The variables of the settings table, each with the cell of its default."""
    table = text.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]
    return re.findall(r"^\| `([A-Z0-9_]+)` \| .* \| (.*) \|$", table, re.M)


def curl_lines():
    """Every curl command in the READMEs."""
    return [
        line
        for block in code_blocks(README, "bash") + code_blocks(JAPANESE, "bash")
        for line in without_comments(block)
        if line.startswith("curl ")
    ]


def here(text, api, files):
    """``text`` with the servers of this test in it."""
    for old, new in (("8000", api.url), ("8010", files.url)):
        text = re.sub(rf"http://(localhost|127\.0\.0\.1):{old}", new, text)
    return text.replace("changeme-token", TOKEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run, one after the other."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("line", curl_lines())
def test_curl_lines_work_in_their_order(fake_with_files, files, folder, line):
    command = here(line, fake_with_files, files).replace("curl ", "curl -sf ", 1)
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if out := re.search(r"-o (\S+\.png)", line):
        width, height = re.search(
            r"width=(\d+)\D+height=(\d+)", line + "width=512 height=512"
        ).groups()
        with Image.open(folder / out[1]) as image:
            assert image.size == (int(width), int(height))


@pytest.mark.parametrize("text", [README, JAPANESE], ids=["en", "ja"])
def test_sdk_example_works(fake_with_files, files, folder, text):
    (block,) = code_blocks(text, "python")
    done = subprocess.run(
        [sys.executable, "-c", here(block, fake_with_files, files)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.startswith(f"{files.url}/i/") for line in done.stdout.split()] == [
        True,
        True,
    ]
    with Image.open(folder / "monochrome.png") as image:
        assert image.size == (512, 512)


MODELS = (flux_api.settings.Settings, file_server.config.Settings)
FIELDS = {
    field.alias: field for model in MODELS for field in model.model_fields.values()
}
# The file server keeps bytes and seconds; its variables are in MiB and hours.
UNITS = {"FILES_MAX_UPLOAD_MB": 2**20, "FILES_TTL_HOURS": 3600}


def test_every_setting_is_in_the_table_and_the_reverse():
    text = (ROOT / "gunicorn.conf.py").read_text()
    read = set(FIELDS) | set(re.findall(r'\("((?:[A-Z]+_)+[A-Z]+)"', text))
    names = [name for name, _ in settings(README)]
    assert set(names) == read
    assert len(names) == len(set(names))


@pytest.mark.parametrize("text", [README, JAPANESE], ids=["en", "ja"])
def test_the_defaults_in_the_table_are_those_of_the_fields(text):
    for name, cell in settings(text):
        match FIELDS[name].default:
            case None | "" | ():
                # Words say what happens then; a value would be one that is not so.
                assert not re.fullmatch(r"[0-9.]+|`[a-z].*`", cell), name
            case str() as word:
                assert cell == f"`{word}`", name
            case int() | float() as number:
                assert cell == f"{number / UNITS.get(name, 1):g}", name
            case file_server.config.Folder(path):
                assert f"`{path.relative_to(ROOT)}`" in cell, name
            case other:
                raise AssertionError(f"{name}: no way to compare {other!r}")


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described(name):
    assert re.fullmatch(r"[A-Z].*\.", FIELDS[name].description, re.S)


def test_bounds_of_numbers_stand_in_the_schema():
    for model in MODELS:
        for name, schema in model.model_json_schema()["properties"].items():
            kind = schema.get("anyOf", [schema])[0]
            if kind.get("type") in ("integer", "number"):
                assert "minimum" in kind, name


def test_make_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`|\w )make ([a-z-]+)(?:`|$| +#)", README, re.M))
    assert {"serve", "test", "lint", "bench", "soak", "fuzz", "install"} <= named
    assert named <= targets


def test_both_languages_have_the_same_settings():
    assert [n for n, _ in settings(README)] == [n for n, _ in settings(JAPANESE)]


def test_links_lead_somewhere():
    for text in (README, JAPANESE):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (ROOT / target).exists(), target


def test_readmes_say_what_tiny_knows():
    words = json.loads((ROOT / "models" / "tiny" / "known_words.json").read_text())
    things = str(len(words["en"]["things"]))
    assert f"of the {things} that" in README
    assert f"{things} 種類" in JAPANESE
    for text in (README, JAPANESE):
        assert text.index(f"{things} ") < text.index("curl http")
    assert ("Japanese" in README.split("## With curl")[0]) == ("ja" in words)


def test_the_examples_are_prompts_that_tiny_knows():
    source = MODEL_INFO["tiny"].base_model
    prompts = re.findall(r"""prompt=["']?([^"'\n]+)["']""", README + JAPANESE)
    assert len(prompts) > 10
    for prompt in prompts:
        assert knows(source, prompt), prompt
        assert not two_things(source, prompt), prompt
