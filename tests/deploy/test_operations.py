"""The commands of docs/operations.md, each run as it stands there."""

from __future__ import annotations

import re
import subprocess
import threading

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.programs import need
from tests.support.servers import ROOT, TOKEN, run_api, run_files

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def command(beginning):
    """The line of the document that begins so."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    (found,) = [line for line in lines if line.startswith(beginning)]
    return found


def shell(line, **places):
    """Run ``line`` with these places in it replaced; what it printed."""
    for old, new in places.items():
        assert old in line
        line = line.replace(old, str(new))
    done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def store(files, number):
    """Upload a picture of its own; its path."""
    form = {"file": ("x.png", make_png((64, 64 + number)), "image/png")}
    answer = requests.post(f"{files.url}/upload", files=form, timeout=30)
    assert answer.ok, answer.text
    return answer.json()["url"].removeprefix(files.url)


def test_a_backup_of_a_running_store_is_whole_and_comes_back(tmp_path):
    need("rsync")
    images, backup = tmp_path / "images", tmp_path / "backup"
    backup.mkdir()
    line, known, over = command("rsync"), {}, threading.Event()

    def go_on(files):
        number = 10
        while not over.is_set():
            store(files, number % 200)
            number += 1

    with run_files(images) as files:
        for number in range(10):
            path = store(files, number)
            known[path] = requests.get(files.url + path, timeout=10).content
        others = threading.Thread(target=go_on, args=(files,))
        others.start()
        try:
            for _ in range(3):
                places = {"var/images/": f"{images}/", "/backup/images/": f"{backup}/"}
                shell(line, **places)
        finally:
            over.set()
            others.join()
    # The disk is lost; the backup is copied to its place.
    restored = tmp_path / "restored"
    restored.mkdir()
    shell(line, **{"var/images/": f"{backup}/", "/backup/images/": f"{restored}/"})
    with run_files(restored) as files:
        for path, data in known.items():
            assert requests.get(files.url + path, timeout=10).content == data
        for file in restored.glob("*.png"):
            found = requests.get(f"{files.url}/i/{file.name}", timeout=10)
            assert found.ok and found.content.endswith(b"IEND\xaeB`\x82")
        latest = requests.get(f"{files.url}/latest", headers=BEARER, timeout=10)
        assert requests.get(latest.json()["url"], timeout=10).ok
        assert requests.get(files.url + store(files, 5), timeout=10).ok


def test_a_new_key_is_taken_at_once_and_an_old_one_goes(tmp_path):
    file = tmp_path / "api-keys"
    file.write_text("bob:sk-bob-0123456789\n")
    with run_api(app="tests.support.fake_app:app", FLUX_API_KEYS_FILE=file) as api:
        api.wait_ready()
        shell(command("(umask 077; echo"), **{"/etc/flux/api-keys": file})
        old, new = (line.partition(":")[2] for line in file.read_text().split())

        def accepted(key):
            bearer = {"Authorization": f"Bearer {key}"}
            url = f"{api.url}/v1/models"
            return requests.get(url, headers=bearer, timeout=10).status_code == 200

        assert accepted(old) and accepted(new)
        # As an editor does.
        (tmp_path / "new").write_text(f"alice:{new}\n")
        (tmp_path / "new").rename(file)
        assert accepted(new) and not accepted(old)


@pytest.mark.parametrize("what", ["sleep", "wake"])
def test_the_weights_leave_and_come_back(what, sleeper):
    beginning = "curl -X POST"
    lines = (ROOT / "docs" / "operations.md").read_text("utf-8").splitlines()
    (line,) = [x for x in lines if x.startswith(beginning) and x.endswith(what)]
    told = shell(line, **{"http://localhost:8000": sleeper.url})
    assert f'"asleep":{str(what == "sleep").lower()}' in told.replace(" ", "")


@pytest.fixture(scope="module")
def sleeper():
    """A server whose operator may send it to sleep, as the document sets it."""
    keys = {"FLUX_ADMIN_KEYS": "me:a-long-secret"}
    with run_api(app="tests.support.fake_app:app", **keys) as api:
        yield api.wait_ready()
