"""What a model set is, and how a request's words choose among the sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Literal

from flux_api.core import ImageRequest, Lora, Mode
from flux_api.errors import InvalidRequest, ModelNotFound
from flux_api.models.lora_files import normal_name
from flux_api.models.near_names import did_you_mean
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import File, Repository, Source
from flux_api.models.upscale_tiles import tiles_of
from flux_api.settings import Offload, Quantization

TaskName = Literal["generate", "edit", "variation", "inpaint", "upscale"]
"""A mode, or ``inpaint``: an edit with a mask, where a set has a pipeline for it."""

COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
"""What a set may take from elsewhere, one by one."""

Scalar = str | int | float | bool

_MOST_LISTED = 20

PIPELINES = frozenset(
    {
        "FluxPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxFillPipeline",
        "FluxKontextPipeline",
        "FluxKontextInpaintPipeline",
        "Flux2Pipeline",
        "Flux2KleinPipeline",
        "Flux2KleinInpaintPipeline",
        "Flux2KleinKVPipeline",
        "Flux3DistilledModularPipeline",
    }
)
"""The diffusers classes that a task may name."""

# Pixels of a side that one token stands for.
_PATCH = 16
# The large models pad every prompt to as many.
_TEXT_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefaults:
    """How a set does one task.

    ``pipeline`` is a diffusers class over ``base_model`` (None: the set's own);
    ``prior`` is the checkpoint of a Redux prior that turns the input picture into the
    prompt. ``guidance_parameter`` is the argument of its ``__call__`` that the
    request's ``guidance_scale`` becomes, None where guidance plays no part; the
    default is then the one value that is accepted. ``prompt`` stands in for one that
    the caller left out, ``loras`` are applied to every request, ``arguments`` go to
    the pipeline as they are.
    """

    pipeline: str
    num_inference_steps: int
    base_model: Source | None = None
    prior: Source | None = None
    guidance_scale: float | None = None
    guidance_parameter: Literal["guidance_scale", "true_cfg_scale"] | None = None
    negative_prompt: bool = False
    strength: float | None = None
    max_images: int = 1
    max_sequence_length: int = 512
    prompt: str = ""
    loras: tuple[Lora, ...] = ()
    arguments: Mapping[str, Scalar] = field(default_factory=dict)

    def check(
        self, images: int, negative_prompt: str | None, *, param: str = "image"
    ) -> None:
        """InvalidRequest names what the task cannot honour of these, a picture too many
        by ``param``."""
        if images > self.max_images:
            raise InvalidRequest(
                f"This model takes at most {self.max_images} input image"
                f"{'s' if self.max_images > 1 else ''}, but got {images}.",
                param=param,
                code="array_above_max_length",
                limits={"maximum": self.max_images, "given": images},
            )
        if negative_prompt and not self.negative_prompt:
            raise InvalidRequest(
                "This model takes no negative_prompt.", param="negative_prompt"
            )

    def choose_guidance(self, asked: float | None) -> float | None:
        """The scale to work with, None where guidance plays no part; InvalidRequest
        where one is asked for all the same."""
        if self.guidance_parameter is not None:
            return self.guidance_scale if asked is None else asked
        if asked is not None and asked != self.guidance_scale:
            raise InvalidRequest(
                "This model is distilled: guidance plays no part, leave "
                "guidance_scale out.",
                param="guidance_scale",
            )
        return None

    def choose_strength(self, asked: float | None, steps: int) -> float | None:
        """How far a picture is changed in ``steps``, None where the pipeline has no
        such thing; InvalidRequest where it is ``asked`` for all the same."""
        if self.strength is None:
            if asked is None:
                return None
            raise InvalidRequest(
                "This model takes no strength for that: leave it out.", param="strength"
            )
        # At least one step is made.
        return max(self.strength if asked is None else asked, 1 / steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model set: what it can do, and with which weights.

    ``base_model`` is a folder or a Hub repository; ``components`` by name come from
    elsewhere, a file or a folder, for the tasks over it. ``shared_components`` are
    those that every other base of the set takes from it, because they are the same
    weights there.
    ``skip_blocks`` are left out of a modular pipeline. ``native_size`` is the side in
    pixels of the square that the model works at, whatever is asked for (the picture is
    scaled), None where it draws any size. ``dtype`` overrides the data type of
    components by name; ``quantization`` and ``offload`` override the settings.
    """

    base_model: Source
    tasks: Mapping[TaskName, TaskDefaults]
    shared_components: tuple[str, ...] = ()
    skip_blocks: tuple[str, ...] = ()
    lora_files: Mapping[str, File] = field(default_factory=dict)
    sizes: SizeRules = field(default_factory=SizeRules)
    native_size: int | None = None
    dtype: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, Source | File] = field(default_factory=dict)
    quantization: Quantization | None = None
    offload: Offload | None = None
    licence: str = ""
    description: str = ""

    def tokens(self, request: ImageRequest) -> int:
        """About how many tokens a forward of one picture of ``request`` has."""
        side, references = self.native_size, len(request.images)
        text = 0 if side else _TEXT_TOKENS
        width, height = request.width, request.height
        if request.mode == "upscale":
            # A tile is what is changed, and nothing beside it is referred to.
            references = 0
            _, _, width, height = tiles_of((width, height), side).boxes[0]
        if side:
            width = height = side
        # References are appended to the picture's own tokens.
        image = -(-width // _PATCH) * -(-height // _PATCH)
        return image * (1 + references) + text

    def task(self, mode: Mode, *, masked: bool = False) -> TaskDefaults:
        """The defaults for a request; InvalidRequest names what the set cannot do."""
        if masked and "inpaint" not in self.tasks:
            raise InvalidRequest("This model takes no mask.", param="mask")
        name = task_name(mode, masked=masked)
        if name not in self.tasks:
            which = "GET /v1/capabilities tells which does"
            raise InvalidRequest(f"This model does no {name}: {which}.", param="model")
        return self.tasks[name]

    def task_of(self, request: ImageRequest) -> TaskDefaults:
        """The defaults for a complete request to this set."""
        return self.task(request.mode, masked=request.mask_image is not None)

    def base_of(self, task: TaskDefaults) -> Source:
        """The checkpoint behind ``task``."""
        return task.base_model or self.base_model

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is that of a checkpoint of it on the Hub, with its owner or
        without; capitals do not count."""
        ids = [str(base) for base in self.bases if isinstance(base, Repository)]
        names = {part.lower() for id in ids for part in (id, id.rpartition("/")[2])}
        return name.lower() in names

    def takes_whole(self, source: Source) -> bool:
        """Whether it takes the transformer of the checkpoint ``source``, its own."""
        return source == self.base_model and "transformer" not in self.components

    @property
    def bases(self) -> dict[Source, TaskDefaults]:
        """Each checkpoint with the first task over it, the set's own first."""
        own = {self.base_model} & {self.base_of(task) for task in self.tasks.values()}
        found: dict[Source, TaskDefaults] = {}
        for task in sorted(
            self.tasks.values(), key=lambda task: self.base_of(task) not in own
        ):
            found.setdefault(self.base_of(task), task)
        return found

    @property
    def sources(self) -> list[Source]:
        """Every checkpoint that its tasks load, priors too."""
        priors = {task.prior for task in self.tasks.values() if task.prior is not None}
        return [*self.bases, *priors]

    @property
    def everything(self) -> list[Source | File]:
        """All that it is loaded from: its sources, and the components and LoRAs that
        are files or folders of their own."""
        return [*self.sources, *self.components.values(), *self.lora_files.values()]


def task_name(mode: Mode, *, masked: bool) -> TaskName:
    """What a request of ``mode`` asks of its set."""
    return "inpaint" if masked else mode


def find_model(models: Mapping[str, ModelInfo], name: str) -> str | None:
    """The key of the set that ``name`` is the name of: its own, else that of its
    checkpoint on the Hub."""
    if name in models:
        return name
    return next((key for key, info in models.items() if info.is_called(name)), None)


def unknown_model(name: str, known: Iterable[str]) -> ModelNotFound:
    """The error for a name that is none of ``known``, with what it may mean."""
    meant = did_you_mean(name, known)
    message = f"The model {name[:64]!r} does not exist.{meant}"
    return ModelNotFound(message, param="model")


def merge_loras(
    applied: tuple[Lora, ...], asked: tuple[Lora, ...], known: Set[str]
) -> tuple[Lora, ...]:
    """The set's ``applied`` LoRAs with those ``asked`` for: the same name takes the
    caller's weight, the others follow. InvalidRequest where a name is not in
    ``known``."""
    asked = tuple(replace(lora, name=normal_name(lora.name)) for lora in asked)
    for lora in asked:
        if lora.name not in known:
            listed = ", ".join(sorted(known)[:_MOST_LISTED]) or "none"
            meant = did_you_mean(lora.name, sorted(known))
            raise InvalidRequest(
                f"There is no LoRA named {lora.name[:64]!r}.{meant} "
                f"GET /v1/loras lists them: {listed}.",
                param="loras",
            )
    weights = {lora.name: lora.adapter_weight for lora in (*applied, *asked)}
    return tuple(Lora(name, weight) for name, weight in weights.items())
