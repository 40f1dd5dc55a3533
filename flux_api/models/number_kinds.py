"""Which kinds of numbers in files of weights are read here, by their headers alone."""

from __future__ import annotations

from collections.abc import Iterable

from flux_api.models.headers import GGUF_KINDS, BadFile, Header

# As either kind of file calls them.
_PLAIN = ("F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2")
# Beside an 8-bit weight, what it is to be multiplied with.
SCALES = (".scale_weight", ".weight_scale")
# Endings of tensors that hold a model's numbers.
_ENDINGS = ("weight", "bias", "scale")


def check_kinds(header: Header, prefixes: Iterable[str]) -> None:
    """BadFile names the first tensor under one of the ``prefixes`` whose numbers, or
    whose scales, are of a kind that is not read."""
    begin = tuple(prefixes)
    for name, tensor in header.tensors.items():
        if not name.startswith(begin):
            continue
        if name.endswith(SCALES):
            _check_scale(name, header)
        if name.endswith(_ENDINGS) and tensor.dtype not in (*_PLAIN, *GGUF_KINDS):
            raise BadFile(
                f"has {name[:200]!r} in the kind {tensor.dtype}, which is not "
                f"supported; these are: fp32, fp16, bf16, fp8, {', '.join(GGUF_KINDS)}"
            )


def _check_scale(name: str, header: Header) -> None:
    """BadFile unless it is a number, or one a row: others would be multiplied
    wrongly."""
    weight = header.tensors.get(f"{name.rpartition('.')[0]}.weight")
    rows = weight.shape[0] if weight and weight.shape else 1
    scale = header.tensors[name]
    plain = scale.dtype in ("F32", "F16", "BF16")
    if not plain or scale.shape not in ((), (1,), (1, 1), (rows,), (rows, 1)):
        raise BadFile(
            f"has several scales a row, {name[:200]!r}, as MXFP8 and NVFP4 have, which "
            "is not supported; take fp8 with a scale a layer, or GGUF"
        )
