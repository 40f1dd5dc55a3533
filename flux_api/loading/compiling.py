"""A transformer's repeated blocks, compiled by torch; without the others, which would
take minutes for a percent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Batches of one and of several, text and picture lengths, and other processors of
# attention are graphs of their own; dynamo's own limit of 8 is soon reached.
_GRAPHS = 64


def compile_block(block: torch.nn.Module, compiler: str | Callable[..., Any]) -> None:
    """Have one ``block`` run compiled by ``compiler``, for all sizes."""
    block.compile(dynamic=True, backend=compiler)


def compile_blocks(transformer: Any, compiler: str | Callable[..., Any]) -> None:
    """Have ``transformer`` run its repeated blocks compiled by ``compiler`` from its
    next forward on, for all sizes."""
    transformer.compile_repeated_blocks(dynamic=True, backend=compiler)


def leave_plain(transformer: torch.nn.Module) -> None:
    """Take back what :func:`compile_blocks` did."""
    for module in transformer.modules():
        module._compiled_call_impl = None


def plain(transformer: Callable[..., Any]) -> Callable[..., Any]:
    """``transformer`` as if it were not compiled, for what its blocks have no room for:
    hooks, and compiled blocks do not look for those that came later."""

    def forward(**kwargs: Any) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return transformer(**kwargs)

    return forward


def prepare_thread(*, forgiving: bool) -> None:
    """Set what torch keeps for each thread, in one that runs compiled forwards. A
    ``forgiving`` one runs plainly what does not compile."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor
    import torch.fx.experimental._config as shapes

    # Else a picture of as many tokens as its text has, or as a head is wide, makes a
    # graph that fits no other.
    shapes.use_duck_shape = False
    dynamo.recompile_limit = _GRAPHS
    dynamo.accumulated_recompile_limit = 4 * _GRAPHS
    dynamo.suppress_errors = forgiving
    # LoRAs lie at the layers, of any rank. Weights stay as they are all the same.
    dynamo.force_nn_module_property_static_shapes = False
    # In 16 bits, what is fused is rounded where the plain one rounds.
    inductor.emulate_precision_casts = True


def graphs() -> int:
    """How many graphs have been compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
