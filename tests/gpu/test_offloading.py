"""What comes to the card waits in pinned memory, and is not copied back."""

from __future__ import annotations

import pytest

from tests.engine.test_families import draw
from tests.gpu.card_server import run_on, worker
from tests.support.tiny_sets import write_sets

# A real card does not say what is copied.
pytestmark = pytest.mark.usefixtures("simulated")
KLEIN = "klein-4b"
WAYS = {
    "whole": ("none", "model"),
    "packed": ("nf4", "model"),
    "layers": ("none", "group"),
    "weights": ("none", "sequential"),
}


@pytest.fixture(scope="module")
def server(card, tmp_path_factory):
    """One set, held in each of those ways, one in memory at a time."""
    path = write_sets(tmp_path_factory.mktemp("sets"), (KLEIN,), 256)
    lines = [path.read_text()]
    for name, (quantization, offload) in WAYS.items():
        lines += [f"[{name}]", f'like = "{KLEIN}"', f'offload = "{offload}"']
        lines += [f'quantization = "{quantization}"']
    path.write_text("\n".join(lines))
    settings = {"MODEL_INFO": path, "FLUX_MODELS": ",".join([KLEIN, *WAYS])}
    with run_on(card, **settings) as running:
        yield running.wait_ready()


def moved_by(server, card, name):
    """The bytes that a picture moves whose prompt was read before: to the card, of it
    from memory that is not pinned, and back; and the picture."""
    before = worker(card)
    picture = draw(server, name, "generate")[1]
    after = worker(card)
    return [after[k] - before[k] for k in ("to_card", "unpinned", "to_host")], picture


@pytest.fixture(scope="module")
def at_rest(server, card):
    """The same where all weights stay on the card: a prompt's embeddings, a picture."""
    draw(server, KLEIN, "generate")
    return moved_by(server, card, KLEIN)[0]


@pytest.mark.parametrize("name", WAYS)
def test_between_pictures_the_card_holds_little(server, card, name):
    draw(server, KLEIN, "generate")
    whole = worker(card)["used"]
    draw(server, name, "generate")
    # Layer by layer the VAE stays.
    assert worker(card)["used"] < whole / 2


@pytest.mark.parametrize("name", WAYS)
def test_weights_come_from_pinned_memory_and_are_not_copied_back(
    server, card, at_rest, name
):
    draw(server, name, "generate")
    pinned = worker(card)["pinned"]
    (to_card, unpinned, to_host), _ = moved_by(server, card, name)
    assert to_card > pinned / 8, "its transformer"
    # A number here and there has no weight.
    assert unpinned - at_rest[1] < 2**10
    assert to_host - at_rest[2] < 2**10
    draw(server, KLEIN, "generate")
    assert worker(card)["pinned"] < pinned / 8, "released with the set"


def test_where_no_memory_can_be_pinned_the_same_is_drawn(server, card):
    pictures = {name: draw(server, name, "generate")[1] for name in WAYS}
    card.pin_nothing()
    try:
        at = len(server.output)
        assert (draw(server, "whole", "generate")[1] == pictures["whole"]).all()
        (to_card, unpinned, _), picture = moved_by(server, card, "whole")
        assert unpinned > to_card / 2
        assert "not pinned, and slow: CUDA error: out of memory" in server.output[at:]
        assert (picture == pictures["whole"]).all()
        for name in ("layers", "weights"):
            assert (draw(server, name, "generate")[1] == pictures[name]).all()
    finally:
        card.pin_nothing(False)
