"""Which quantization and offload let a set fit into the memory that there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flux_api.loading.footprint import GIB, Footprint
from flux_api.loading.placement import go_together
from flux_api.settings import Offload, Quantization

# For the driver's context and for what the allocator cannot use.
RESERVE = GIB
# From the best picture to the least memory; what is read layer by layer at each step
# comes last, for its slowness.
PREFERENCE: tuple[tuple[Quantization, Offload], ...] = (
    ("none", "none"),
    ("none", "text"),
    ("fp8", "none"),
    ("fp8", "text"),
    ("none", "model"),
    ("nf4", "none"),
    ("nf4", "text"),
    ("nf4", "model"),
    ("none", "group"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Free bytes on the device (0 without one) and in the host's memory; ``bfloat16``
    and ``fp8`` say what can be computed with there."""

    device_free: int
    host_free: int
    device_name: str = ""
    bfloat16: bool = True
    fp8: bool = False

    def __str__(self) -> str:
        return (
            f"{self.device_free / GIB:.1f} GiB free on {self.device_name}, "
            f"{self.host_free / GIB:.1f} GiB of RAM"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a set is to be held: about ``peak`` bytes on the device and ``host`` in the
    host's memory; ``fits`` where that is there. ``resident`` of its checkpoints stay on
    the device and ``copies`` of them in the host's memory, None for all. ``tiling``:
    the largest picture fits only if its VAE works in tiles."""

    quantization: Quantization
    offload: Offload
    peak: int
    host: int
    fits: bool
    resident: int | None = None
    copies: int | None = None
    tiling: bool = False

    def __str__(self) -> str:
        words = f"quantization {self.quantization}, offload {self.offload}"
        if self.resident is not None:
            words += f", {self.resident} of its checkpoints at a time"
        return f"{words}: about {self.peak / GIB:.1f} GiB on the GPU"


def plan_memory(
    footprint: Footprint,
    machine: Machine,
    *,
    quantization: Quantization | None = None,
    offload: Offload | None = None,
    width: int = 2,
) -> Plan:
    """The first of PREFERENCE that fits ``machine``, among those with what was chosen
    already; where none does, the one that takes the least. A number of a weight that is
    not quantized has ``width`` bytes."""
    choices = list(_choices(footprint, machine, quantization, offload))
    ways = list(_ways(choices, len(footprint.bases)))
    quick = [way for way in ways if way[0][1] not in _LAYERED]
    working = footprint.working
    # A request with several references may be refused, where else each step of all of
    # them would wait for the weights.
    one = replace(working, denoise=working.with_one)
    plans = []
    for tried, amount in ((quick, working), (quick, one), (ways, working)):
        for choice, resident in tried:
            sizes = _Sizes(replace(footprint, working=amount), *choice, resident, width)
            plans.append(sizes.on(machine))
            if plans[-1].fits:
                return plans[-1]
    return min(plans, key=lambda plan: plan.peak)


def _choices(
    footprint: Footprint,
    machine: Machine,
    quantization: Quantization | None,
    offload: Offload | None,
) -> Iterator[tuple[Quantization, Offload]]:
    """PREFERENCE with the given words in place of its own."""
    seen = set()
    for own, move in PREFERENCE:
        choice = (quantization or own, offload or move)
        if choice in seen or not go_together(*choice):
            continue
        if own == "fp8" and quantization is None and not machine.fp8:
            continue
        # A prompt upsampler would be read layer by layer for every word of its text.
        if move == "group" and offload is None and not footprint.streams:
            continue
        seen.add(choice)
        yield choice


def _ways(
    choices: list[tuple[Quantization, Offload]], bases: int
) -> Iterator[tuple[tuple[Quantization, Offload], int | None]]:
    """Each of ``choices`` with all of a set's ``bases`` on the device, then, before the
    next quantization, with fewer of them."""
    for quantization, offload in choices:
        yield (quantization, offload), None
        pair = [(quantization, o) for o in _STAYING if (quantization, o) in choices]
        # bitsandbytes' 8 bits cannot leave the device.
        if quantization == "int8" or (quantization, offload) not in pair[-1:]:
            continue
        for choice in pair:
            for resident in range(bases - 1, 0, -1):
                yield choice, resident


# With these a transformer is moved only for another one of its set.
_STAYING: tuple[Offload, ...] = ("none", "text")
# With these every weight is moved for each step.
_LAYERED: tuple[Offload, ...] = ("group", "sequential")


class _Sizes:
    """The bytes of a set, held in one way."""

    def __init__(
        self,
        footprint: Footprint,
        quantization: Quantization,
        offload: Offload,
        resident: int | None,
        width: int,
    ) -> None:
        self._footprint, self._resident = footprint, resident
        self._quantization, self._offload, self._width = quantization, offload, width
        self._bases = footprint.of_bases(quantization, width)
        # Those that come by themselves are not quantized.
        texts: Quantization = "none" if offload == "text" else quantization
        self._texts = footprint.of_texts(texts, width)
        self._total = footprint.total(quantization, width)

    def on(self, machine: Machine) -> Plan:
        """The plan for ``machine``."""
        peak, decoding = self._on_device()
        host, copies = self._on_host(machine.host_free)
        room = machine.device_free - RESERVE
        return Plan(
            self._quantization,
            self._offload,
            peak,
            host,
            peak <= room and host <= machine.host_free,
            self._resident,
            copies,
            tiling=decoding > room,
        )

    def _on_device(self) -> tuple[int, int]:
        """The most bytes at once, and those while the largest picture is decoded."""
        footprint, offload, width = self._footprint, self._offload, self._width
        work = footprint.working
        number = width // 2
        encode, denoise, decode, largest = (
            size * number
            for size in (work.encode, work.denoise, work.decode, work.largest_decode)
        )
        # What never moves: a prior, the VAE of most ways, and LoRAs that were used.
        always = footprint.of_priors(width) + footprint.loras
        vae = max(footprint.named_each("vae", width), default=0)
        texts = max(self._texts, default=0)
        if offload == "model":
            bases = max(footprint.named_each("transformer", width, self._quantization))
            stages = (texts + encode, bases + denoise, vae + decode)
            return always + max(stages), always + vae + largest
        if offload in ("group", "sequential"):
            # The layer at work and the next one on its way.
            layers = 2 if offload == "group" else 1
            held = always + layers * footprint.largest_layer(width)
            held += vae if offload == "group" else 0
            # A prompt upsampler comes whole.
            whole = texts if offload == "group" and not footprint.streams else 0
            return held + max(whole + encode, denoise, decode), held + largest
        held = always + sum(self._bases[: self._resident])
        shared = self._total - sum(self._bases) - footprint.of_priors(width)
        held += shared - sum(footprint.of_texts(self._quantization, width))
        if offload == "none":
            held += sum(self._texts)
            return held + max(encode, denoise, decode), held + largest
        if footprint.streams:
            stage = encode + 2 * footprint.largest_text_layer(width)
            return held + max(stage, denoise, decode), held + largest
        # They come whole, and the last one stays until the picture is done.
        return held + texts + max(encode, denoise, decode), held + texts + largest

    def _on_host(self, free: int) -> tuple[int, int | None]:
        """The bytes in the host's memory, and how many checkpoints are kept there."""
        # Weights pass through it one component at a time.
        passing = self._footprint.largest(self._quantization, self._width)
        stays = self._offload in _STAYING
        if stays:
            kept = sum(self._texts) if self._offload == "text" else 0
            least = kept + self._bases[0] if kept else passing
            if self._resident is None:
                return least, None
            possible = range(len(self._bases), 0, -1)
        else:
            kept = self._total - sum(self._bases)
            least = max(passing, kept + self._bases[0])
            possible = range(len(self._bases), 1, -1)
        for copies in possible:
            host = kept + sum(self._bases[:copies])
            if max(host, passing) <= free:
                every = copies == len(self._bases)
                return max(host, passing), None if every else copies
        return least, 0 if stays else None if len(self._bases) == 1 else 1
