"""LoRAs that were on are switched, not read again, for as long as there is room."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from flux_api.core import Lora
from flux_api.errors import InvalidRequest
from flux_api.loading.loras import Adapters
from flux_api.models.lora_files import LoraFolder
from tests.support import tiny_checkpoints
from tests.support.tiny_sets import write_lora

MIB = 2**20


class Bench:
    """A transformer with LoRAs, and which of them were read from their files."""

    def __init__(self, folder, caplog, kept_bytes):
        self.caplog, self.folder = caplog, folder
        transformer = tiny_checkpoints.flux1_transformer()
        self.layer = transformer.transformer_blocks[0].attn.to_q
        self.adapters = Adapters(
            SimpleNamespace(transformer=transformer),
            {},
            LoraFolder(folder).find,
            kept_bytes=kept_bytes,
        )

    def write(self, *names, **kinds):
        for number, name in enumerate(names):
            path = self.folder / f"{name}.safetensors"
            write_lora(path, **{"seed": number + 1, **kinds})

    def switch(self, *names):
        """What the layer makes with them, and the names that were read."""
        self.caplog.clear()
        # This package's own level: doctor, run before in this process, sets it.
        with self.caplog.at_level(logging.INFO, "flux_api.loading"):
            self.adapters.apply(tuple(map(Lora, names)))
        messages = [record.getMessage() for record in self.caplog.records]
        read = [message.split()[1].rstrip(":") for message in messages]
        sample = torch.linspace(-1, 1, self.layer.in_features)[None]
        with torch.no_grad():
            return self.layer(sample), read


@pytest.fixture
def bench(tmp_path, caplog, monkeypatch):
    """Makes one over ``kept_bytes``."""
    # An application made before in this process keeps the log to itself.
    monkeypatch.setattr(logging.getLogger("flux_api"), "propagate", True)
    return lambda kept_bytes=MIB: Bench(tmp_path, caplog, kept_bytes)


def size_of_one(bench):
    """How many bytes one of the files takes."""
    bench.switch("a")
    [(_, read)] = bench.adapters._applied
    return read.size


def test_of_two_that_alternate_each_is_read_once(bench):
    bench = bench()
    bench.write("a", "b")
    plain, _ = bench.switch()
    first, read = bench.switch("a")
    assert read == ["a"]
    second, read = bench.switch("b")
    assert read == ["b"]
    for _ in range(3):
        again, read = bench.switch("a")
        assert (read, (again == first).all()) == ([], True)
        again, read = bench.switch("b")
        assert (read, (again == second).all()) == ([], True)
    both, read = bench.switch("a", "b")
    assert read == []
    assert (both != first).any()
    gone, read = bench.switch()
    assert (read, (gone == plain).all()) == ([], True)


def test_asked_for_once_more_it_stays_on_as_it_is(bench):
    """On a card it would have to come there again."""
    bench = bench(0)
    bench.write("a", "b")
    bench.switch("a")
    hooks = list(bench.layer._forward_hooks)
    first, read = bench.switch("a")
    assert (list(bench.layer._forward_hooks), read) == (hooks, [])
    bench.write("a", rank=4)
    assert (bench.switch("a")[0] != first).any()
    assert list(bench.layer._forward_hooks) != hooks


def test_without_room_each_switch_reads_again(bench):
    bench = bench(0)
    bench.write("a", "b")
    assert [bench.switch(name)[1] for name in "aabba"] == [["a"], [], ["b"], [], ["a"]]


def test_the_ones_used_last_stay_and_no_more_bytes_than_there_is_room(bench, tmp_path):
    one = bench()
    one.write("a", "b", "c", "d")
    size = size_of_one(one)
    two = Bench(tmp_path, one.caplog, 2 * size)
    for name in "abcd":
        two.switch(name)
    # Of those that are off there is room for two.
    assert two.switch("c")[1] == []
    assert two.switch("b")[1] == []
    assert two.switch("a")[1] == ["a"]


def test_a_file_that_was_written_over_is_read_again(bench):
    bench = bench()
    bench.write("a", "b")
    old, _ = bench.switch("a")
    bench.write("a", seed=9, rank=4)
    new, read = bench.switch("a")
    assert read == ["a"]
    assert (new != old).any()
    bench.switch("b")
    bench.write("a", rank=2)
    assert bench.switch("a")[1] == ["a"]


def test_one_that_is_gone_stays_on_for_those_who_have_it(bench):
    """Pictures with the same LoRAs are drawn together."""
    bench = bench()
    bench.write("a")
    plain, _ = bench.switch()
    drawn, _ = bench.switch("a")
    (bench.folder / "a.safetensors").unlink()
    with pytest.raises(InvalidRequest, match="'a' is gone"):
        bench.switch("a")
    sample = torch.linspace(-1, 1, bench.layer.in_features)[None]
    with torch.no_grad():
        assert (bench.layer(sample) == drawn).all()
    assert (bench.switch()[0] == plain).all()


def test_one_that_is_gone_is_refused_and_leaves_nothing_on(bench):
    bench = bench()
    bench.write("a", "b")
    plain, _ = bench.switch()
    bench.switch("a")
    bench.switch("b")
    (bench.folder / "a.safetensors").unlink()
    with pytest.raises(InvalidRequest, match="'a' is gone"):
        bench.switch("a")
    assert (bench.switch()[0] == plain).all()
