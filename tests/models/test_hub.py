"""What the Hub does not give is told in words; which commit is in use is kept."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from flux_api.commands.fetch import unlock_models
from flux_api.models import hub
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.hub import (
    ModelMissing,
    fetch_file,
    fetch_files,
    listed,
    present_file,
    present_folder,
)
from flux_api.models.hub_lock import (
    FILE,
    at_commit,
    lock_commit,
    locked_commit,
    unlock_commit,
)
from flux_api.models.sources import File, Folder, Repository

MINE = Repository("maker/mine")
COMMIT = "0123456789abcdef"


def refused(status):
    """An answer of the Hub, as its library tells it with an address and an id."""
    answer = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("https://host/secret?id=1", response=answer)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused(500), "the Hub answered 500 for maker/mine"),
        (
            LocalEntryNotFoundError("/home/me/cache"),
            "maker/mine is not downloaded and the Hub is out of reach",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/home/me/cache"),
            "maker/mine could not be downloaded: No space left on device",
        ),
        (TimeoutError(), "maker/mine could not be downloaded: TimeoutError"),
    ],
)
def test_why_nothing_was_downloaded_is_said_without_a_path(monkeypatch, error, words):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(ModelMissing) as caught:
        fetch_files(MINE, ["*"], print)
    assert caught.value.message == words
    # It would be the same again.
    assert not caught.value.should_retry


def test_a_file_that_a_folder_lacks_is_named(tmp_path):
    mine = Folder(tmp_path / "mine")
    with pytest.raises(ModelMissing, match="there is no model folder 'mine'"):
        fetch_files(mine, ["*"], print)
    mine.path.mkdir()
    with pytest.raises(ModelMissing, match="there is no 'a.gguf' in mine"):
        fetch_file(File(mine, "a.gguf"), print)
    (mine.path / "a.gguf").touch()
    assert fetch_file(File(mine, "a.gguf"), print) == mine.path / "a.gguf"


def test_of_many_names_three_are_listed():
    names = ["a", "b", "c", "d", "e"]
    assert listed(names[:3]) == "a, b, c"
    assert listed(names) == "a, b, c and 2 more"


def test_files_that_are_counted_are_no_bytes(monkeypatch, tmp_path):
    """The library has a bar for both."""

    def download(*_, tqdm_class, **__):
        for unit, total in (("it", 3), ("B", None), ("B", 8)):
            with tqdm_class(unit=unit, total=total) as bar:
                bar.update(None)
                bar.update(2)
        return str(tmp_path)

    monkeypatch.setattr(hub, "_SAY_SECONDS", -1.0)
    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    told = []
    fetch_files(MINE, ["*"], told.append)
    assert [(one.done, one.total, one.unit) for one in told] == [
        (0, 8, "bytes"),
        (2, 8, "bytes"),
    ]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The Hub's cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_commit_stays_until_an_update_is_wanted(cache):
    other = Repository("maker/mine", "v2")
    assert locked_commit(MINE) is None and at_commit(MINE) == "maker/mine"
    lock_commit(MINE, COMMIT)
    assert locked_commit(MINE) == COMMIT
    assert at_commit(MINE) == "maker/mine at 0123456789ab"
    assert locked_commit(other) is None
    assert at_commit(Folder(cache / "mine")) == "mine"
    lock_commit(other, "f" * 16)
    unlock_commit(MINE)
    assert (locked_commit(MINE), locked_commit(other)) == (None, "f" * 16)
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_an_update_is_of_all_that_a_model_is_loaded_from(cache):
    parts, loras = Repository("maker/parts"), Repository("maker/loras")
    mine = replace(
        MODEL_INFO["tiny"],
        base_model=MINE,
        components={"vae": File(parts, "vae.safetensors"), "transformer": parts},
        lora_files={"pencil": File(loras, "a.safetensors")},
    )
    for source in (MINE, parts, loras):
        lock_commit(source, COMMIT)
    unlock_models(["mine"], {"mine": mine})
    assert not any(map(locked_commit, (MINE, parts, loras)))


def test_what_is_here_is_that_of_the_commit_in_use(cache):
    """A branch may have moved on, and its files be here as well."""
    kept = cache / "models--maker--mine"
    for commit in (COMMIT, "f" * 16):
        (kept / "snapshots" / commit).mkdir(parents=True)
        for name in ("modular_model_index.json", "a.gguf"):
            (kept / "snapshots" / commit / name).touch()
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("f" * 16)
    file, other = File(MINE, "a.gguf"), File(MINE, "b.gguf")
    for commit in ("f" * 16, COMMIT):
        if commit == COMMIT:
            lock_commit(MINE, COMMIT)
        assert present_folder(MINE) == kept / "snapshots" / commit
        assert present_file(file) == kept / "snapshots" / commit / "a.gguf"
        assert present_file(other) is None
    elsewhere = Folder(kept / "snapshots" / COMMIT)
    assert present_folder(elsewhere) == elsewhere.path
    assert present_file(File(elsewhere, "a.gguf")) == elsewhere.path / "a.gguf"
    assert present_file(File(elsewhere, "b.gguf")) is None
    assert present_folder(Repository("maker/other")) is None
    assert present_folder(Folder(cache / "nowhere")) is None


def test_a_damaged_list_of_commits_is_written_anew(cache):
    (cache / FILE).write_text("{")
    assert locked_commit(MINE) is None
    lock_commit(MINE, COMMIT)
    assert locked_commit(MINE) == COMMIT


def test_a_cache_that_cannot_be_written_is_used_as_it_is(cache, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("flux_api"), "propagate", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "nowhere"))
    lock_commit(MINE, COMMIT)
    assert "cannot write hub.lock.json: No such file or directory" in caplog.text
    unlock_commit(MINE)
