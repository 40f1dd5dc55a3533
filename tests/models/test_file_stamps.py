"""Another look at a model's files gives something else once one of them is another."""

from __future__ import annotations

import os

from flux_api.models.file_stamps import look_at_files
from flux_api.models.sources import File, Folder


def test_files_that_come_go_or_change_are_seen_in_every_folder(tmp_path):
    weights = tmp_path / "mine" / "vae" / "a.safetensors"
    weights.parent.mkdir(parents=True)
    table, alone = tmp_path / "models.toml", tmp_path / "downloads" / "a.gguf"
    alone.parent.mkdir()
    sources = [Folder(tmp_path / "mine"), Folder(tmp_path / "nowhere")]
    sources.append(File(Folder(alone.parent), alone.name))

    def look():
        assert look_at_files(sources, table) == look_at_files(sources, table)
        return look_at_files(sources, table)

    seen = [look()]
    for change in (
        lambda: table.write_text("a"),
        lambda: weights.write_bytes(b"half"),
        lambda: weights.write_bytes(b"whole"),
        # Of the same size, by another time.
        lambda: os.utime(weights, ns=(1, 1)),
        lambda: weights.rename(weights.with_name("b.safetensors")),
        lambda: alone.write_bytes(b"half"),
        lambda: alone.write_bytes(b"whole"),
        table.unlink,
    ):
        change()
        seen.append(look())
    assert len(set(seen)) == len(seen)
    assert look_at_files(sources, None) == seen[-1]
    # What else lies beside a file is not of the model.
    (alone.parent / "another.gguf").write_bytes(b"other")
    assert look() == seen[-1]
