"""Headers against the libraries that write them: kinds, sizes and places of tensors."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from flux_api.models.headers import GGML_TYPES, BadFile, read_header


@pytest.mark.parametrize("number", GGML_TYPES)
def test_a_kind_of_gguf_takes_the_bytes_that_its_library_writes(number):
    name, block, width = GGML_TYPES[number]
    kind = gguf.GGMLQuantizationType(number)
    assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (block, width))


def write_gguf(path, alignment):
    """Two tensors and values of every kind."""
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_custom_alignment(alignment)
    writer.add_string("general.name", "mine")
    writer.add_array("words", ["a", "b"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_bool("yes", True)
    writer.add_float64("half", 0.5)
    writer.add_int16("less", -1)
    tensors = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b.weight": np.arange(5, dtype=np.float16),
    }
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.mark.parametrize("alignment", [32, 64, 8])
def test_a_ggufs_tensors_lie_where_its_header_says(tmp_path, alignment):
    path = tmp_path / "a.gguf"
    tensors = write_gguf(path, alignment)
    header = read_header(path)
    assert header.is_gguf
    told = {"general.name": "mine", "yes": "True", "half": "0.5", "less": "-1"}
    assert told.items() <= header.metadata.items()
    content = path.read_bytes()
    for name, tensor in tensors.items():
        facts = header.tensors[name]
        assert (facts.shape, facts.size) == (tensor.shape, tensor.nbytes)
        end = facts.offset + facts.size
        assert content[facts.offset : end] == tensor.tobytes()


@pytest.mark.parametrize("alignment", [0, 2**21])
def test_an_alignment_that_nobody_writes_is_damage(tmp_path, alignment):
    path = tmp_path / "a.gguf"
    write_gguf(path, 32)
    name = b"general.alignment"
    content = path.read_bytes()
    place = content.index(name) + len(name) + 4
    changed = alignment.to_bytes(4, "little")
    path.write_bytes(content[:place] + changed + content[place + 4 :])
    with pytest.raises(BadFile, match="its alignment"):
        read_header(path)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8"]
)
def test_a_tensor_takes_the_bytes_of_its_numbers(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    tensor = np.zeros((3, 5), dtype)
    save_file({"a": tensor}, path, {"modelspec.title": "mine"})
    header = read_header(path)
    assert header.tensors["a"].size == tensor.nbytes
    assert header.metadata == {"modelspec.title": "mine"}
    assert not header.is_gguf


def test_bytes_of_nothing_are_no_text(tmp_path):
    """A download that was cut off may leave them."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(4096))
    with pytest.raises(BadFile, match=r"^is damaged \(SafetensorError\)"):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.bin", "is a pickle, which is never opened; convert it"),
        ("a.dduf", "is DDUF, which is never opened"),
        ("a.zip", "is not a .safetensors or .gguf or .sft file"),
        ("a.safetensors", r"cannot be read \(No such file or directory\)"),
        ("a.gguf", r"cannot be read \(No such file or directory\)"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, name, words):
    with pytest.raises(BadFile, match=words):
        read_header(tmp_path / name)
