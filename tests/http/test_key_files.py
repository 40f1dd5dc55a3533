"""Keys and tokens in files: a changed file counts from the next request on."""

from __future__ import annotations

import os

import pytest
import requests

from tests.support.servers import run_api, run_files

OLD, NEW = "sk-alice-0123456789", "sk-alice-9876543210"
PICTURE = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\x3a\x7e\x9b\x55"
    b"\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1\xe2!\xbc\x33\0\0\0\0IEND\xaeB`\x82"
)


def replace(file, text):
    """Write as editors and orchestrators do: a new file takes the old one's name."""
    new = file.with_name("new")
    new.write_text(text)
    os.replace(new, file)


def accepts(server, key):
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.get(f"{server.url}/v1/models", headers=headers, timeout=10)
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"alice:{OLD}\n")
    with run_api(
        app="tests.support.fake_app:app",
        FLUX_API_KEYS="root:sk-root-0123456789",
        FLUX_API_KEYS_FILE=file,
    ) as server:
        yield server.wait_ready(), file


def test_a_key_is_changed_without_a_restart(keyed):
    server, file = keyed
    replace(file, f"alice:{OLD}\n")
    assert accepts(server, OLD) and not accepts(server, NEW)
    replace(file, f"alice:{OLD}\nalice:{NEW}\n")
    assert accepts(server, OLD) and accepts(server, NEW)
    replace(file, f"alice:{NEW}\n")
    assert accepts(server, NEW) and not accepts(server, OLD)
    assert accepts(server, "sk-root-0123456789")


@pytest.mark.parametrize(
    "text", ["no key at all", f"a:{OLD},b:{OLD}", "root:sk-root-0123456789", "\0"]
)
def test_a_broken_file_keeps_the_old_keys_and_is_logged(keyed, text):
    server, file = keyed
    replace(file, f"alice:{OLD}\n")
    assert accepts(server, OLD)
    before = server.output.count("what it said before stays")
    replace(file, text)
    assert accepts(server, OLD) and not accepts(server, NEW)
    assert server.output.count("what it said before stays") == before + 1
    assert OLD not in server.output and str(file) not in server.output


def test_a_file_that_is_gone_for_a_moment_changes_nothing(keyed):
    server, file = keyed
    replace(file, f"alice:{OLD}\n")
    file.unlink()
    assert accepts(server, OLD)
    file.write_text(f"alice:{NEW}\n")
    assert accepts(server, NEW) and not accepts(server, OLD)


def test_the_file_servers_tokens_come_from_files(tmp_path):
    reading, writing = tmp_path / "reading", tmp_path / "writing"
    reading.write_text("first-reader\n")
    writing.write_text("first-writer\n")
    tokens = {"BEARER_TOKEN_FILE": reading, "UPLOAD_TOKEN_FILE": writing}
    with run_files(tmp_path / "stored", **tokens) as server:

        def upload(token):
            return requests.post(
                f"{server.url}/upload",
                files={"file": ("x.png", PICTURE)},
                headers={"Authorization": f"Bearer {token}"},
                timeout=10,
            ).status_code

        def latest(token):
            headers = {"Authorization": f"Bearer {token}"}
            url = f"{server.url}/latest"
            return requests.get(url, headers=headers, timeout=10).status_code

        assert (upload("second-writer"), upload("first-writer")) == (403, 200)
        assert (latest("second-reader"), latest("first-reader")) == (403, 200)
        replace(writing, "second-writer")
        replace(reading, "second-reader")
        assert (upload("first-writer"), upload("second-writer")) == (403, 200)
        assert (latest("first-reader"), latest("second-reader")) == (403, 200)
        replace(reading, "\n")
        assert latest("second-reader") == 200


def test_the_api_sends_the_token_that_the_file_holds_now(tmp_path):
    token = tmp_path / "token"
    token.write_text("first-token\n")
    with (
        run_files(tmp_path / "stored", UPLOAD_TOKEN_FILE=token) as files,
        run_api(
            app="tests.support.fake_app:app",
            FILE_SERVER=files.url,
            FILE_SERVER_UPLOAD_TOKEN_FILE=token,
        ) as api,
    ):
        api.wait_ready()
        for text in ("first-token", "second-token"):
            replace(token, text)
            body = {"prompt": "x", "size": "64x64"}
            url = f"{api.url}/v1/images/generations"
            answer = requests.post(url, json=body, timeout=30)
            assert answer.json()["data"][0]["url"].startswith(files.url)
