"""README: its commands work as they stand, and its tables tell the truth."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

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
    """The rows of the settings table."""
    table = text.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]
    return re.findall(r"^\| `([A-Z_]+)` \| .*\|$", table, re.M)


def curl_lines():
    """Every curl command in the README."""
    return [
        line
        for block in code_blocks(README, "bash")
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
def test_curl_lines_work_in_their_order(api_with_files, files, folder, line):
    command = here(line, api_with_files, files).replace("curl ", "curl -sf ", 1)
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


def test_sdk_example_works(api_with_files, files, folder):
    (block,) = code_blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", here(block, api_with_files, files)],
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


def test_every_setting_is_in_the_table_and_the_reverse():
    read = set()
    for source in ("flux_api/settings.py", "file_server/config.py", "gunicorn.conf.py"):
        text = (ROOT / source).read_text()
        read |= set(re.findall(r'"((?:[A-Z]+_)+[A-Z]+)"', text))
        read |= set(re.findall(r'"(BIND|MODEL_INFO)"', text))
    assert set(settings(README)) == read
    assert len(settings(README)) == len(set(settings(README)))


def test_make_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`|\w )make ([a-z-]+)(?:`|$| +#)", README, re.M))
    assert {"serve", "test", "lint", "bench", "soak", "fuzz", "install"} <= named
    assert named <= targets


def test_both_languages_say_the_same():
    for language in ("bash", "python"):
        assert [without_comments(block) for block in code_blocks(README, language)] == [
            without_comments(block) for block in code_blocks(JAPANESE, language)
        ]
    assert settings(README) == settings(JAPANESE)
    headings = [len(re.findall(r"^#+ ", text, re.M)) for text in (README, JAPANESE)]
    assert headings[0] == headings[1]


def test_links_lead_somewhere():
    for text in (README, JAPANESE):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (ROOT / target).exists(), target
