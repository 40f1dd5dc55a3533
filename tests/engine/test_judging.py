"""What is judged on a machine: what is faster, what shares forwards, what is kept."""

from __future__ import annotations

import pytest

from flux_api.engine.sharing import default_batch_tokens, pays_on_cpu
from flux_api.engine.trial import is_faster
from flux_api.engine.verdicts import FILE, Verdicts
from tests.mixed import CPU


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
