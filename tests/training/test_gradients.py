"""Broken gradients never reach the weights; long sequences are attended to safely."""

from __future__ import annotations

import pytest
import torch

from training import attention
from training.guard import PATIENCE, GradientGuard


@pytest.mark.parametrize(("tokens", "plain"), [(16, True), (32, True), (48, False)])
def test_plain_attention_is_for_short_sequences(tokens, plain, monkeypatch):
    used = []
    for name in ("plain_attention", "fused_attention"):
        kept = getattr(attention, name)

        def spy(*given, name=name, kept=kept, **options):
            used.append(name)
            return kept(*given, **options)

        monkeypatch.setattr(attention, name, spy)
    torch.manual_seed(0)
    states = [torch.randn(2, 4, tokens, 64) for _ in range(3)]
    attended = attention.attend(*states)
    assert used == ["plain_attention" if plain else "fused_attention"]
    other = attention.plain_attention(*states)
    torch.testing.assert_close(attended, other, rtol=1e-4, atol=1e-5)


def test_a_finite_gradient_resets_the_patience():
    guard = GradientGuard()
    for _ in range(3):
        assert not any(guard.allows(float("nan")) for _ in range(PATIENCE - 1))
        assert guard.allows(1.0)


def test_thirty_broken_steps_in_a_row_stop_the_run():
    guard = GradientGuard()
    assert not any(guard.allows(float("inf")) for _ in range(PATIENCE - 1))
    with pytest.raises(SystemExit, match="30 steps in a row were not finite"):
        guard.allows(float("inf"))
