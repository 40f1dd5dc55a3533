"""LoRA files under the names that they have, and what they say of themselves."""

from __future__ import annotations

import json
import logging
import unicodedata

import numpy as np
import pytest
import requests
from safetensors.numpy import save_file

from flux_api.core import Lora
from flux_api.errors import InvalidRequest
from flux_api.http.parameters import Parameters
from flux_api.models.headers import BadFile, read_header
from flux_api.models.info import merge_loras
from flux_api.models.lora_files import (
    LoraFacts,
    LoraFolder,
    check_lora,
    describe_lora,
)
from tests.support.servers import run_api

NAMES = [
    "plain",
    "with space",
    "brackets [v1] (final)",
    "水彩画",
    "a+b",
    "v1.2",
    "x" * 200,
    "styles/ink",
    "styles/線画/細い",
    "a, b: c",
]


def write(path, metadata=None, rank=4):
    """A LoRA's file of one layer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layer = "transformer.single_transformer_blocks.0.attn.to_q"
    tensors = {
        f"{layer}.lora_A.weight": np.zeros((rank, 8), np.float32),
        f"{layer}.lora_B.weight": np.zeros((8, rank), np.float32),
    }
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_found_under_the_names_they_have(tmp_path, name):
    write(tmp_path / f"{name}.safetensors")
    assert LoraFolder(tmp_path).names == {name}
    assert LoraFolder(tmp_path).find(name).is_file()


def test_endings_may_be_in_capitals(tmp_path):
    write(tmp_path / "LOUD.SAFETENSORS")
    assert LoraFolder(tmp_path).names == {"LOUD"}


def test_links_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "elsewhere" / "a.safetensors")
    write(tmp_path / "elsewhere" / "more" / "b.safetensors")
    folder = tmp_path / "loras"
    folder.mkdir()
    (folder / "one.safetensors").symlink_to(tmp_path / "elsewhere" / "a.safetensors")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    # Met before what else is there.
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    assert LoraFolder(folder).names == {"one", "linked/a", "linked/more/b"}


def test_what_is_skipped_is_logged_once_with_the_reason(tmp_path, caplog):
    write(tmp_path / "a.safetensors")
    write(tmp_path / "a.SAFETENSORS")
    (tmp_path / "._a.safetensors").touch()
    (tmp_path / "old.ckpt").touch()
    (tmp_path / "readme.txt").touch()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    write(tmp_path / "red\x1b[31m.safetensors")
    folder = LoraFolder(tmp_path)
    with caplog.at_level(logging.WARNING, "flux_api"):
        assert folder.names == folder.names == {"a"}
    assert sorted(record.getMessage() for record in caplog.records) == [
        "LoRA file '._a.safetensors' is skipped: it is hidden",
        "LoRA file 'a.SAFETENSORS' is skipped: a.safetensors has the same name",
        "LoRA file 'gone.safetensors' is skipped: it is not a file, or a link to "
        "nothing",
        "LoRA file 'old.ckpt' is skipped: it is not a .safetensors file",
        "LoRA file 'red\\x1b[31m.safetensors' is skipped: its name has characters that "
        "cannot be written",
    ]


def test_one_of_many_is_looked_up_without_listing_them(tmp_path, caplog):
    """To list a folder is to say what is skipped there."""
    write(tmp_path / "deep" / "er" / "ink.safetensors")
    (tmp_path / "old.ckpt").touch()
    folder = LoraFolder(tmp_path)
    with caplog.at_level(logging.WARNING, "flux_api"):
        found = folder.find("deep/er/ink")
        assert not caplog.records
        assert folder.files == {"deep/er/ink": found}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("../secret", "in/../../secret", "/secret", "", ".", "in//a", "in/./a"),
        *(".hidden", ".in/a", "linked/a", "a\0b", "a" * 5000, "in", "\ud800"),
    ],
)
def test_what_is_looked_up_is_never_a_path(tmp_path, name):
    write(tmp_path / "secret.safetensors")
    folder = tmp_path / "loras"
    for path in (".hidden", ".in/a", "in/a"):
        write(folder / f"{path}.safetensors")
    (folder / "linked").symlink_to(folder / "in")
    assert LoraFolder(folder).look_up(name) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("styles/ink:0.5", (Lora("styles/ink", 0.5),)),
        ("水彩画, a+b:-1", (Lora("水彩画", 1.0), Lora("a+b", -1.0))),
        ("odd:name:0.5", (Lora("odd:name", 0.5),)),
        ("brackets [v1] (final):2", (Lora("brackets [v1] (final)", 2.0),)),
        ('[{"name": "a, b: c", "adapter_weight": 0.5}]', (Lora("a, b: c", 0.5),)),
        ('["a, b: c"]', (Lora("a, b: c", 1.0),)),
    ],
)
def test_every_name_can_be_asked_for(text, found):
    assert Parameters.read({"loras": text}).loras == found


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(InvalidRequest, match=r"GET /v1/loras lists them: a, b\."):
        merge_loras((), (Lora("c"),), {"b", "a"})


def test_of_many_an_unknown_name_lists_twenty():
    known = {f"{number:02}" for number in range(30)}
    with pytest.raises(InvalidRequest, match=r"18, 19\.$"):
        merge_loras((), (Lora("a-name-of-its-own"),), known)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("pixel_art", "pixel-art"),
        ("Pixel-Art", "pixel-art"),
        ("ink", "styles/ink"),
        ("すいさい", "styles/すいさい"),
    ],
)
def test_an_unknown_name_is_told_the_nearest_one(asked, meant):
    known = {"styles/ink", "pixel-art", "styles/すいさい"}
    with pytest.raises(InvalidRequest, match=f"Did you mean '{meant}'"):
        merge_loras((), (Lora(asked),), known)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_name_is_the_same_however_its_characters_are_put_together(
    tmp_path, written, asked
):
    write(tmp_path / f"{unicodedata.normalize(written, 'がぞう')}.safetensors")
    folder = LoraFolder(tmp_path)
    lora = Lora(unicodedata.normalize(asked, "がぞう"))
    (found,) = merge_loras((), (lora,), folder.names)
    assert folder.find(found.name).is_file()


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_tag_frequency": '{"a": {"ink": 1e999}}'},
        {"ss_tag_frequency": "[" * 100_000},
        {"ss_tag_frequency": '{"a": [1]}'},
        {"ss_tag_frequency": "null"},
    ],
)
def test_metadata_that_nobody_can_read_is_passed_over(tmp_path, metadata):
    write(tmp_path / "a.safetensors", metadata)
    facts = describe_lora(tmp_path / "a.safetensors")
    assert facts.rank == 4
    assert not facts.trigger_words


def test_a_layer_of_no_size_has_no_rank(tmp_path):
    save_file({"a.lora_A.weight": np.zeros((), np.float32)}, tmp_path / "a.safetensors")
    assert describe_lora(tmp_path / "a.safetensors").rank is None


def test_the_list_of_trigger_words_has_an_end(tmp_path):
    words = {"modelspec.trigger_phrase": "word, " * 100_000}
    write(tmp_path / "a.safetensors", words)
    assert len(describe_lora(tmp_path / "a.safetensors").trigger_words) < 1000


def test_a_file_whose_list_would_take_long_to_read_says_nothing(tmp_path):
    """Anybody may ask for the list, and the files are anybody's."""
    long = "x" * 2**21
    tags = json.dumps({"a": {f"tag {number}": 1 for number in range(100_000)}})
    write(tmp_path / "tags.safetensors", {"ss_tag_frequency": tags})
    write(tmp_path / "family.safetensors", {"modelspec.architecture": long})
    write(tmp_path / "header.safetensors", {"modelspec.architecture": long * 8})
    few = json.dumps({"a": {"x" * 2**19: 2, "ink": 1}})
    write(tmp_path / "few.safetensors", {"ss_tag_frequency": few})
    told = {path.stem: describe_lora(path) for path in tmp_path.iterdir()}
    assert told["tags"] == LoraFacts(None, 4, ())
    assert len(told["family"].family) == 1000
    assert told["header"] == LoraFacts(None, None, ())
    assert [len(word) for word in told["few"].trigger_words] == [1000, 3]


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, rank=4)
    ranks = [describe_lora(path).rank]
    write(path, rank=8)
    ranks.append(describe_lora(path).rank)
    path.unlink()
    assert [*ranks, describe_lora(path).rank] == [4, 8, None]


def test_the_list_tells_family_rank_and_trigger_words(tmp_path):
    tags = {"10_ink": {"ink drawing": 20, "flower": 3}, "1_x": {"ink drawing": 1}}
    write(
        tmp_path / "styles" / "ink.safetensors",
        {"ss_base_model_version": "flux1", "ss_tag_frequency": json.dumps(tags)},
        rank=16,
    )
    write(
        tmp_path / "水彩.safetensors",
        {
            "modelspec.architecture": "flux-1-dev/lora",
            "modelspec.trigger_phrase": "watercolor, wash",
        },
    )
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    settings = {"FLUX_LORA_DIR": tmp_path, "FLUX_MODELS": "tiny,flux1"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        body = requests.get(f"{server.url}/v1/loras", timeout=10).json()
    lora = {"object": "lora", "model": None}
    assert body == {
        "object": "list",
        "data": [
            {"id": "turbo-alpha", "object": "lora", "model": "flux1"},
            lora | {"id": "broken", "family": None, "rank": None, "trigger_words": []},
            lora
            | {
                "id": "styles/ink",
                "family": "flux1",
                "rank": 16,
                "trigger_words": ["ink drawing", "flower"],
            },
            lora
            | {
                "id": "水彩",
                "family": "flux-1-dev/lora",
                "rank": 4,
                "trigger_words": ["watercolor", "wash"],
            },
        ],
    }


OTHERS = {
    "page": (b"<!DOCTYPE html>\n<html>" + b" " * 300, "a web page (HTML): download"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid x",
        "a Git LFS pointer",
    ),
    "torch": (b"PK\x03\x04" + bytes(60), "a zip, as torch.save writes"),
    "pickle": (b"\x80\x02}q\x00.", "a pickle: convert it to safetensors"),
    "json": (b'{"error": "Repository not found"}', "a text: download the file"),
    "japanese": ("モデルが見つかりません。".encode() * 20, "a text: download the file"),
    "gguf": (b"GGUF" + bytes(60), "a GGUF: name it .gguf"),
    "nothing": (b"", "an empty one: download it again"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_file_is_told_by_its_first_bytes(tmp_path, name):
    content, what = OTHERS[name]
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest) as refused:
        check_lora(path, name)
    assert f"The LoRA '{name}' is not a safetensors file but {what}" in str(
        refused.value
    )
    with pytest.raises(BadFile) as bad:
        read_header(path)
    assert f"is not a .safetensors file but {what}" in str(bad.value)


@pytest.mark.parametrize("size", [3, 60, 300, 70_000])
def test_a_file_of_weights_is_none_of_them(tmp_path, size):
    """Whatever number its header's length begins with."""
    for extra in range(8):
        path = tmp_path / "a.safetensors"
        write(path, metadata={"a": "<" * (size + extra)})
        assert read_header(path).tensors
        check_lora(path, "a")
