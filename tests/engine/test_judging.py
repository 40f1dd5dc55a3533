"""What is judged on a machine: what is faster, what shares forwards, what is kept."""

from __future__ import annotations

import pytest
import torch

from flux_api.engine.quality import Quality, QualityGate, quality_requests
from flux_api.engine.shared_forward import joinable
from flux_api.engine.sharing import default_batch_tokens, pays_on_cpu
from flux_api.engine.trial import is_faster, repeated_block
from flux_api.engine.tuning import Tuner
from flux_api.engine.verdicts import FILE, Verdicts
from flux_api.models.catalog import MODEL_INFO
from tests.mixed import CPU

GOOD, BAD = (Quality(psnr, 1.0, exact_seconds=1, seconds=1) for psnr in (60.0, 1.0))


@pytest.mark.parametrize(
    ("after", "better"), [(0.5, True), (0.96, True), (0.98, False), (1.0, False)]
)
def test_what_is_hardly_faster_is_not_worth_its_differences(after, better):
    assert is_faster(1.0, after) is better


def test_a_forward_takes_a_large_picture_or_several_small_ones():
    """Of 1024x1024 with 512 tokens of text, whatever the model's size; of 512x512 four
    and more where it is small."""
    largest, usual, small = map(default_batch_tokens, (32e9, 12e9, 4e9))
    assert largest == (1024 // 16) ** 2 + 512
    picture = (512 // 16) ** 2 + 512
    assert [tokens // picture for tokens in (largest, usual, small)] == [3, 4, 5]
    assert default_batch_tokens(1e6) == small


@pytest.mark.parametrize(
    ("performance", "native_size", "pays"),
    [
        ("speed", 64, True),
        ("max", 256, True),
        ("speed", 257, False),
        ("speed", None, False),
        ("exact", 64, False),
    ],
)
def test_on_a_cpu_small_pictures_share_where_rounding_is_allowed(
    performance, native_size, pays
):
    assert pays_on_cpu(performance, native_size) is pays


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "7"])
def test_a_damaged_file_of_verdicts_is_none_and_is_written_anew(tmp_path, text):
    (tmp_path / FILE).write_text(text, "latin-1")
    verdicts = Verdicts(tmp_path, CPU)
    assert verdicts.find("speed", "tiny") is None
    verdicts.keep("speed", "tiny", {"note": "slower"})
    assert Verdicts(tmp_path, CPU).find("speed", "tiny") == {"note": "slower"}


def test_where_nothing_can_be_written_they_last_until_the_end(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    verdicts = Verdicts(tmp_path / "file" / "state", CPU)
    verdicts.keep("speed", "tiny", {"note": "slower"})
    assert verdicts.find("speed", "tiny") == {"note": "slower"}
    assert "FLUX_STATE_DIR cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "known", "level", "words"),
    [
        ("exact", {"max": GOOD, "speed": GOOD}, "exact", []),
        ("speed", {"max": GOOD}, "speed", []),
        ("speed", {"speed": GOOD}, "speed", []),
        ("speed", {"speed": BAD}, "exact", ["speed is not used"]),
        ("max", {"max": GOOD, "speed": BAD}, "max", []),
        ("max", {"max": BAD}, "speed", ["max is not used"]),
        ("max", {}, "speed", ["is not known: run 'flux-api quality --model tiny'"]),
        ("max", {"max": BAD, "speed": BAD}, "exact", ["max is not", "speed is not"]),
    ],
)
def test_a_set_is_drawn_at_the_level_that_was_found_good(wanted, known, level, words):
    """What only rounds is good until it was found to be bad."""
    gate, info = QualityGate(Verdicts(None, CPU)), MODEL_INFO["tiny"]
    for one, quality in known.items():
        gate.keep(one, "tiny", info, quality)
    found, notes = gate.allowed(wanted, "tiny", info)
    assert found == level
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))
    assert [gate.knows(one, "tiny", info) for one in ("max", "speed")] == [
        one in known for one in ("max", "speed")
    ]


TOKENS = torch.zeros(1, 4, 2)


@pytest.mark.parametrize(
    ("kwargs", "joins"),
    [
        ({"hidden_states": TOKENS, "timestep": 0.5, "guidance": None}, True),
        ({"hidden_states": TOKENS, "joint_attention_kwargs": {}}, True),
        ({"hidden_states": TOKENS, "joint_attention_kwargs": {"scale": 0.5}}, False),
        ({"hidden_states": TOKENS, "kv_cache": object()}, False),
        ({"hidden_states": TOKENS, "return_dict": True}, False),
        ({"sample": TOKENS}, False),
    ],
    ids=["plain", "without state", "adapters", "a cache", "an object", "another's"],
)
def test_only_calls_without_a_state_of_their_own_share_a_forward(kwargs, joins):
    assert joinable({"return_dict": False} | kwargs) is joins


def test_where_no_block_is_repeated_there_is_none_to_try():
    with pytest.raises(ValueError, match="no repeated blocks"):
        repeated_block(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("name", MODEL_INFO)
def test_quality_is_judged_by_eight_requests_that_a_caller_could_send(name):
    info = MODEL_INFO[name]
    asked = quality_requests(name, info)
    assert len({(one.prompt, one.seed) for one in asked}) == 8
    for one in asked:
        size = one.width, one.height
        assert info.sizes.choose(size, size, "size") == size
        # A model's own size where it has one: others are scaled.
        assert one.width == (info.native_size or 512)
        assert one.num_inference_steps == next(
            task.num_inference_steps for task in info.tasks.values()
        )


def test_what_is_drawn_exactly_needs_no_tuning():
    module = torch.nn.Linear(1, 1)
    assert Tuner("exact", CPU).find(module) is not None
    assert Tuner("speed", CPU).find(module) is None
