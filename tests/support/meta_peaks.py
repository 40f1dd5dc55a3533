"""How many bytes a module's forward takes beside its weights, without a device.

On torch's meta device tensors have shapes and no memory; what is alive is counted as it
comes and goes. Attention is taken for a kernel that keeps no scores, as every one for
bfloat16 on a GPU is.
"""

from __future__ import annotations

import weakref

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of what is made within; ``peak`` is the most at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def leave_out(self, tensor):
        """Count neither ``tensor``, which is held outside, nor views of it."""
        self._known.add(tensor.untyped_storage()._cdata)

    def _count(self, storage):
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._known.discard(key)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Attention whose only new tensor is its output."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            return torch.empty_like(query)
        return function(*args, **(kwargs or {}))


def peak_of(module, call, **inputs):
    """The most bytes that were alive at once while ``call``, a method of ``module``,
    ran with ``inputs``: neither those nor its weights are counted."""
    live = Live()
    for tensor in (*module.parameters(), *module.buffers(), *tree_leaves(inputs)):
        if isinstance(tensor, torch.Tensor):
            live.leave_out(tensor)
    with torch.no_grad(), FusedAttention(), live:
        call(**inputs)
    return live.peak
