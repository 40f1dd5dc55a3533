"""LoRA adapters on a pipeline: applied for a request, gone afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import recurse_remove_peft_layers
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file

from flux_api.core import Lora
from flux_api.models.lora_files import SUFFIX, check_lora, refusal

logger = logging.getLogger(__name__)


class Adapters:
    """The LoRAs on the components behind ``pipeline``. ``own`` are the set's, by name
    and file: loaded once, kept, and switched on and off. ``find`` looks up the others,
    which stay only as long as requests ask for them."""

    def __init__(
        self,
        pipeline: Any,
        own: Mapping[str, Path],
        find: Callable[[str], Path | None],
    ) -> None:
        self._pipeline = pipeline
        self._own = dict(own)
        self._find = find
        self._applied: tuple[Lora, ...] = ()
        try:
            for name, path in own.items():
                self._load(name, path)
            self._switch(())
        except BaseException:
            self._forget(self._loaded())
            raise

    def apply(self, loras: tuple[Lora, ...]) -> None:
        """Work with exactly ``loras`` from now on. InvalidRequest where a file cannot
        be used; nothing of it is then left behind, and none are applied."""
        # Weight 0 is off, and no reason to load a file.
        loras = tuple(lora for lora in loras if lora.adapter_weight != 0)
        if loras == self._applied:
            return
        wanted = {lora.name for lora in loras}
        # Until all is well nothing counts as applied.
        self._applied = ()
        self._forget(self._loaded() - wanted - set(self._own))
        try:
            for name in wanted - self._loaded():
                path = self._own.get(name) or self._find(name)
                if path is None:
                    raise refusal(name, "is gone")
                self._load(name, path)
            self._switch(loras)
        except BaseException:
            self.reset()
            raise
        self._applied = loras

    def reset(self) -> None:
        """As it was before any request."""
        self._applied = ()
        self._forget(self._loaded() - set(self._own))
        self._switch(())

    def _loaded(self) -> set[str]:
        listed = self._pipeline.get_list_adapters()
        return {_name(adapter) for names in listed.values() for adapter in names}

    def _load(self, name: str, path: Path) -> None:
        check_lora(path, name)
        check_alphas(path, name)
        try:
            where, options = _arguments(path)
            state = self._pipeline.lora_state_dict(where, **options)
            self._check_fit(state[0] if isinstance(state, tuple) else state)
            where, options = _arguments(path)
            self._pipeline.load_lora_weights(
                where, adapter_name=_adapter(name), **options
            )
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception as error:  # whatever a wrong file makes of the converters
            logger.warning("LoRA %s: %s", name, type(error).__name__)
            self._forget({name})
            raise refusal(name, "does not fit this model") from None
        if name not in self._loaded():
            raise refusal(name, "does not fit this model")

    def _check_fit(self, state: Mapping[str, torch.Tensor]) -> None:
        """ValueError unless all of ``state``, keys in diffusers' form, belongs on the
        transformer's layers (or a text encoder's). Loaders are lenient: they pad and
        skip what does not fit, overwrite norms, and widen input layers for good."""
        for key, tensor in state.items():
            part, _, rest = key.partition(".")
            path, _, matrix = rest.partition(".lora_")
            if not matrix:
                raise ValueError(key)
            if part != "transformer":
                continue
            layer = self._pipeline.transformer.get_submodule(path)
            layer = getattr(layer, "base_layer", layer)
            down = matrix.startswith("A")
            fits = layer.in_features if down else layer.out_features
            if tensor.shape[1 if down else 0] != fits:
                raise ValueError(key)

    def _forget(self, names: set[str]) -> None:
        """Take the adapters ``names`` off every component, even half loaded ones; with
        the last of them gone the layers are plain again."""
        for part in self._components():
            layers = [m for m in part.modules() if isinstance(m, BaseTunerLayer)]
            config = getattr(part, "peft_config", None) or {}
            if not layers:
                continue
            for adapter in map(_adapter, names):
                for layer in layers:
                    layer.delete_adapter(adapter)
                config.pop(adapter, None)
            if not config:
                recurse_remove_peft_layers(part)
                part.__dict__.pop("peft_config", None)
                part._hf_peft_config_loaded = False

    def _switch(self, loras: tuple[Lora, ...]) -> None:
        """Switch ``loras`` on and all others off."""
        if not self._loaded():
            return
        if not loras:
            self._pipeline.disable_lora()
            return
        self._pipeline.enable_lora()
        self._pipeline.set_adapters(
            [_adapter(lora.name) for lora in loras],
            [lora.adapter_weight for lora in loras],
        )

    def _components(self) -> list[Any]:
        names = self._pipeline._lora_loadable_modules
        parts = (getattr(self._pipeline, name, None) for name in names)
        return [part for part in parts if part is not None]


def _arguments(path: Path) -> tuple[str | dict[str, torch.Tensor], dict[str, Any]]:
    """How diffusers is told to read the file: by its name, which also finds metadata,
    or as tensors where the name ends in other letters, which it takes for a pickle."""
    if path.suffix != SUFFIX:
        return load_file(path), {}
    # Without use_safetensors it would try a pickle of the same name.
    options = {"use_safetensors": True, "local_files_only": True}
    return str(path.parent), {"weight_name": path.name, **options}


def check_alphas(path: Path, name: str) -> None:
    """InvalidRequest unless every alpha in the file is a positive number: diffusers'
    converters halve alpha / rank until it balances, for ever where it is negative."""
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118, it is no mapping
            if not key.endswith(".alpha"):
                continue
            alpha = file.get_tensor(key).float()
            if not bool(torch.isfinite(alpha).all() and (alpha > 0).all()):
                raise refusal(name, f"has an alpha that is not above 0, in {key!r}")


def _adapter(name: str) -> str:
    """The adapter's name inside peft, where a dot would split a module's path."""
    return "lora_" + name.encode().hex()


def _name(adapter: str) -> str:
    return bytes.fromhex(adapter.removeprefix("lora_")).decode()
