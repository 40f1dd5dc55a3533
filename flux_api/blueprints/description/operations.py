"""What each route takes and answers, by the name of its view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from flux_api import errors
from flux_api.blueprints.a1111.parameters import (
    A1111Parameters,
    OptionsParameters,
    PictureParameters,
)
from flux_api.blueprints.admin import SleepParameters
from flux_api.blueprints.bfl.parameters import BflParameters
from flux_api.blueprints.bfl.parameters import ResultParameters as ResultQuery
from flux_api.blueprints.description.shapes import (
    TEXT,
    Schema,
    events,
    listed,
    named,
    ref,
)
from flux_api.blueprints.jobs import ListParameters, ResultParameters
from flux_api.blueprints.mcp.messages import Message
from flux_api.blueprints.openai.parameters import ImagesParameters, UpscaleParameters
from flux_api.blueprints.openai.requests import Operation as Operations
from flux_api.blueprints.original import ProcessParameters
from flux_api.errors import FluxError
from flux_api.http.fields import Fields
from flux_api.http.parameters import FORMATS
from flux_api.models.hub import ModelMissing

EXAMPLE_JOB = "example-job"
EXAMPLE_TASK = "0123456789abcdef0123456789abcdef"
# Small: whoever tries it does not want to wait.
_EXAMPLE = {"prompt": "a red heart", "width": 256, "height": 256, "seed": 7}
# 64x64 pixels of orange.
EXAMPLE_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQ"
    "Q0AMAgEsGP+baATHOxP0jpoTee0lwgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC"
    "AgICAgI/C1sTAIkUnbhlgAAAABJRU5ErkJggg=="
)
JOB_EVENTS = events(
    *("queued", "started", "step", "partial_image", "done", "failed", "cancelled")
)
IMAGE_EVENTS = events(
    "error",
    *(
        f"image_{operation}.{what}"
        for operation in get_args(Operations)
        for what in ("partial_image", "completed")
    ),
)
FILES: dict[str, Schema] = {f"image/{name}": {} for name in FORMATS}

Content = Mapping[str, Schema]
Errors = tuple[type[FluxError], ...]

# What the model, the queue, the body and the caller's pictures may lead to.
_BODY: Errors = (
    errors.InvalidRequest,
    errors.BodyTimeout,
    errors.PayloadTooLarge,
    errors.UnsupportedMedia,
)
_OUTCOMES: Errors = (
    errors.InvalidRequest,
    errors.InvalidImage,
    errors.ImageFetchFailed,
    errors.ContentFiltered,
    errors.Cancelled,
    errors.PipelineFailed,
    errors.Unavailable,
    ModelMissing,
    errors.DeadlineExceeded,
    errors.InsufficientStorage,
)
_ADMIN: Errors = (
    errors.Unauthorized,
    errors.CrossSiteRequest,
    errors.StillWorking,
    errors.QueueFull,
    errors.Unavailable,
)
GENERATING: Errors = (
    *_BODY,
    *_OUTCOMES,
    errors.CrossSiteRequest,
    errors.ModelNotFound,
    errors.JobConflict,
    errors.KeyInUse,
    errors.ResultExpired,
    errors.KeyReused,
    errors.QueueFull,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One view: its ``tag`` in the document, what a good ``answer`` and each ``other``
    status hold by media type, the ``errors`` that it may meet, and the parameters of
    its ``query`` and ``body``, of which those of ``required`` have to be there.
    ``example`` is a body that works, and ``pictures`` the fields that may be files;
    ``is_json`` says that it is never a form."""

    tag: str
    answer: Content
    errors: Errors = ()
    other: Mapping[int, tuple[str, Content]] = field(default_factory=dict)
    query: type[Fields] | None = None
    body: type[Fields] | None = None
    required: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    is_json: bool = False
    example: Mapping[str, Any] = field(default_factory=dict)


def _json(*names: str) -> Content:
    found = [ref(name) for name in names]
    return {"application/json": {"anyOf": found} if len(found) > 1 else found[0]}


_ACCEPTED = {202: ("With 'Prefer: respond-async': the job.", _json("AcceptedJob"))}
_IMAGES = {**_json("ImagesAnswer", "Plan"), **IMAGE_EVENTS, **FILES}


def _images(*required: str, pictures: tuple[str, ...], **example: Any) -> Operation:
    return Operation(
        tag="Pictures as with OpenAI",
        answer=_IMAGES,
        errors=GENERATING,
        other=_ACCEPTED,
        body=ImagesParameters,
        required=required,
        pictures=pictures,
        example=example,
    )


def _process(answer: Content) -> Operation:
    return Operation(
        tag="Pictures",
        answer=answer,
        errors=GENERATING,
        other=_ACCEPTED,
        body=ProcessParameters,
        pictures=("input_file", "mask"),
        example=_EXAMPLE,
    )


def _job(answer: Content, *more: type[FluxError], **options: Any) -> Operation:
    found: Errors = (errors.JobNotFound, *more)
    return Operation(tag="Jobs", answer=answer, errors=found, **options)


def _task(answer: Content, *more: type[FluxError], **options: Any) -> Operation:
    return replace(
        _job(answer, errors.InvalidRequest, *more, **options),
        tag="Pictures as with Black Forest Labs",
    )


def _sdapi(schema: Schema, *found: type[FluxError], **options: Any) -> Operation:
    return Operation(
        tag="As with AUTOMATIC1111",
        answer={"application/json": schema},
        errors=found,
        **options,
    )


def _sdapi_pictures(
    *required: str, pictures: tuple[str, ...] = (), **example: Any
) -> Operation:
    return _sdapi(
        {"anyOf": [ref("SdapiAnswer"), ref("Plan")]},
        *GENERATING,
        other=_ACCEPTED,
        body=A1111Parameters,
        required=required,
        pictures=pictures,
        is_json=True,
        example=example,
    )


def _service(name: str, tag: str = "Health and numbers", **options: Any) -> Operation:
    return Operation(tag=tag, answer=_json(name), **options)


_PAGE = "Pages"
_PLAIN = {"text/plain": TEXT}

OPERATIONS: dict[str, Operation] = {
    "original.process": _process(_json("ProcessAnswer", "Plan")),
    "original.process_raw": _process({**FILES, **_json("Plan")}),
    "openai.routes.generations": _images(
        "prompt", pictures=(), prompt="a cute cat illustration", size="256x256", n=2
    ),
    "openai.routes.edits": _images(
        "prompt",
        pictures=("image", "mask"),
        prompt="make it blue",
        image=EXAMPLE_PICTURE,
    ),
    "openai.routes.variations": _images(pictures=("image",), image=EXAMPLE_PICTURE),
    "openai.routes.upscale": replace(
        _images(pictures=("image",), image=EXAMPLE_PICTURE, scale=2),
        body=UpscaleParameters,
    ),
    "openai.routes.models": _service("Models", "Models"),
    "openai.routes.model": _service("Model", "Models", errors=(errors.ModelNotFound,)),
    "openai.routes.list_loras": _service(
        "Loras", "Models", errors=(errors.Unavailable,)
    ),
    "bfl.routes.begin": Operation(
        tag="Pictures as with Black Forest Labs",
        answer=_json("BflTask", "Plan"),
        errors=(*GENERATING, errors.WebhookRefused),
        # A name that does not begin like a hosted one leads nowhere.
        other={404: ("There is no such model.", _json("BflError", "OpenAIError"))},
        body=BflParameters,
        pictures=("input_image", "image_prompt", "image", "mask"),
        example=_EXAMPLE,
    ),
    "bfl.routes.get_result": _task(
        _json("BflResult"), query=ResultQuery, example={"id": EXAMPLE_TASK}
    ),
    "bfl.routes.sample": _task(
        FILES, *_OUTCOMES, errors.JobNotDone, errors.ResultExpired
    ),
    "a1111.routes.txt2img": _sdapi_pictures(
        prompt="a red heart", width=256, height=256
    ),
    "a1111.routes.img2img": _sdapi_pictures(
        "init_images",
        pictures=("init_images", "mask"),
        prompt="a blue heart",
        init_images=[EXAMPLE_PICTURE],
    ),
    "a1111.routes.png_info": _sdapi(
        named({}),
        *(*_BODY, errors.InvalidImage, errors.CrossSiteRequest),
        *(errors.QueueFull, errors.Unavailable),
        body=PictureParameters,
        is_json=True,
        required=("image",),
        example={"image": EXAMPLE_PICTURE},
    ),
    "a1111.routes.progress": _sdapi(named({})),
    "a1111.routes.interrupt": _sdapi(named({}), errors.CrossSiteRequest),
    "a1111.routes.options": _sdapi(named({})),
    "a1111.routes.set_options": _sdapi(
        named({}),
        *(*_BODY, errors.CrossSiteRequest),
        body=OptionsParameters,
        is_json=True,
        example={"sd_model_checkpoint": "tiny"},
    ),
    "a1111.routes.sd_models": _sdapi(listed(named({}))),
    "a1111.routes.loras": _sdapi(listed(named({}))),
    "a1111.routes.listed": _sdapi(
        {"type": ["array", "object"]},
        other={404: ("There is no such list.", _json("A1111Error"))},
        example={"name": "samplers"},
    ),
    "a1111.routes.queue_status": _sdapi(named({})),
    "mcp.routes.answer": Operation(
        tag="Tools for agents",
        answer=_json("McpAnswer"),
        errors=(*_BODY, errors.CrossSiteRequest, errors.KeyReused, errors.KeyInUse),
        other={202: ("A notification was taken.", {})},
        body=Message,
        is_json=True,
        required=("method",),
        example={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    ),
    "service.capabilities": _service("Capabilities", "Models"),
    "jobs.list_jobs": Operation(
        tag="Jobs",
        answer=_json("Jobs"),
        errors=(errors.InvalidRequest,),
        query=ListParameters,
    ),
    "jobs.all_events": Operation(
        tag="Jobs",
        answer=JOB_EVENTS,
        errors=(errors.InvalidRequest, errors.QueueFull),
        query=ListParameters,
    ),
    "jobs.show": _job(_json("Job")),
    "jobs.cancel": _job(_json("Job"), errors.CrossSiteRequest),
    "jobs.events": _job(JOB_EVENTS, errors.QueueFull),
    "jobs.result": _job(
        FILES,
        *_OUTCOMES,
        errors.JobNotDone,
        errors.ResultExpired,
        query=ResultParameters,
    ),
    "service.status": _service("Status"),
    "service.healthz": _service("Health"),
    "service.readyz": _service(
        "Ready", other={503: ("Not ready, and why.", _json("NotReady"))}
    ),
    "admin.sleep": _service(
        "Asleep",
        "Administration",
        errors=(*_BODY, *_ADMIN),
        query=SleepParameters,
    ),
    "admin.wake": _service("Asleep", "Administration", errors=(*_ADMIN, *_OUTCOMES)),
    "metrics.metrics": Operation(tag="Health and numbers", answer=_PLAIN),
    "page.index": Operation(tag=_PAGE, answer={**_json("Server"), "text/html": TEXT}),
    "page.file": Operation(
        tag=_PAGE,
        answer={"*/*": {}},
        other={
            304: ("It has not changed.", {}),
            404: ("There is no such file.", _json("Error")),
        },
        example={"name": "tokens.css"},
    ),
    "description.routes.document": Operation(
        tag=_PAGE, answer={"application/json": {}}
    ),
    "description.routes.docs": Operation(tag=_PAGE, answer={"text/html": TEXT}),
}
