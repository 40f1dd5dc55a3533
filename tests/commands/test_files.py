"""Where pictures go: names, and files that are whole."""

from __future__ import annotations

import os

import pytest

from flux_api.commands.files import PictureFiles, slug, write
from flux_api.commands.transport import FAILED, Failure


@pytest.mark.parametrize(
    ("prompt", "stem"),
    [
        ("A red  heart!", "a-red-heart"),
        ("ねこ、いぬ", "ねこ-いぬ"),
        ("../../etc/passwd", "etc-passwd"),
        ("?!", "picture"),
        # Cut, and not between two words.
        (f"{'a' * 39} and more", "a" * 39),
    ],
)
def test_a_prompt_makes_a_name(prompt, stem):
    assert slug(prompt) == stem
    # Most file systems take 255 bytes, and there are a number and an ending to come.
    assert len(slug("猫" * 300).encode()) < 240


def test_a_file_is_whole_or_not_there_and_others_may_read_it(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new" / "a.png", b"picture")
        # It is as it was for whatever comes after.
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    made = tmp_path / "new" / "a.png"
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (b"picture", 0o640)
    (tmp_path / "taken").mkdir()
    with pytest.raises(Failure, match="cannot be written") as told:
        write(tmp_path / "taken", b"picture")
    assert told.value.exit_code == FAILED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "taken"]


def test_names_are_numbered_where_one_was_given_for_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = PictureFiles("out.v2.webp", 3)
    names = [*plan.names("a cat", 2, "webp"), *plan.names("a dog", 1, "webp")]
    assert [str(name) for name in names] == [
        *("out.v2-1.webp", "out.v2-2.webp", "out.v2-3.webp")
    ]
    plan = PictureFiles(None, 3)
    (tmp_path / "a-cat.jpg").touch()
    names = [*plan.names("a cat", 2, "jpeg"), *plan.names("a dog", 1, "jpeg")]
    assert [str(name) for name in names] == ["a-cat-2.jpg", "a-cat-3.jpg", "a-dog.jpg"]
