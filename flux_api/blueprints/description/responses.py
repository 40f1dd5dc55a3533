"""What answers hold, in JSON Schema."""

from __future__ import annotations

from typing import get_args

from flux_api.blueprints.bfl.answers import STATUSES
from flux_api.blueprints.description.shapes import (
    FLAG,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    WHOLE_OR_NULL,
    Schema,
    about,
    listed,
    named,
    or_null,
    record,
    ref,
    words,
)
from flux_api.blueprints.openai.parameters import QUALITY
from flux_api.core import Mode, Performance
from flux_api.http.parameters import FORMATS
from flux_api.queue.jobs import State

_MODE = words(*get_args(Mode))
_FACTS = {
    "seed": about(WHOLE, "The same request with it gives the same picture."),
    "mode": _MODE,
    "width": WHOLE,
    "height": WHOLE,
    "guidance_scale": NUMBER_OR_NULL,
    "num_inference_steps": WHOLE,
    "model": TEXT,
    "performance": about(words(*get_args(Performance)), "How it was made."),
    "loras": listed(record({"name": TEXT, "adapter_weight": NUMBER})),
    "warning?": about(TEXT, "What was read otherwise than it was sent."),
    "native_width?": about(WHOLE, "The model worked at this size."),
    "native_height?": WHOLE,
}
_JOB = {
    "id": TEXT,
    "state": words(*get_args(State)),
    "created_at": about(WHOLE, "Seconds since 1970."),
    "mode?": _MODE,
    "model?": TEXT,
    "width?": WHOLE,
    "height?": WHOLE,
    "seed?": WHOLE,
    "num_inference_steps?": WHOLE,
    "guidance_scale?": NUMBER_OR_NULL,
    "images?": about(WHOLE, "How many pictures were asked for."),
    "queue_seconds": NUMBER,
    "run_seconds": NUMBER,
    "position?": about(WHOLE, "How many are in front of it."),
    "image?": about(WHOLE, "The picture of the newest step, from 0."),
    "step?": WHOLE,
    "steps?": about(WHOLE, "How many a picture takes, those of all tiles together."),
    "urls?": about(listed(TEXT), "Where its pictures are stored."),
    "warning?": about(TEXT, "What was read otherwise than it was sent."),
    "error?": record({"message": TEXT, "code": TEXT}),
}
_PLACE = record({"loc": listed(TEXT), "msg": TEXT, "type": TEXT})
_RPC_ERROR = record({"code": WHOLE, "message": TEXT, "data?": record({"code": TEXT})})
_PROGRESS = record(
    {"done": WHOLE, "total": WHOLE, "unit": words("bytes", "components")},
    "How far loading is, where it says so.",
)
_WEIGHTS = about(words("device", "host", "dropped"), "Where the weights are.")
_USAGE_DETAILS = record({"text_tokens": WHOLE, "image_tokens": WHOLE})

SCHEMAS: dict[str, Schema] = {
    "ProcessAnswer": record(
        {
            "result_image_url?": about(TEXT, "On the file server, where there is one."),
            "result_image_base64?": about(TEXT, "Where there is none."),
            **_FACTS,
            "job_id": TEXT,
        },
        "The picture, and what made it.",
    ),
    "ImagesAnswer": record(
        {
            "created": about(WHOLE, "Seconds since 1970."),
            "background": words("opaque"),
            "data": listed(
                record(
                    {
                        "seed": WHOLE,
                        "native_size?": TEXT,
                        "b64_json?": TEXT,
                        "url?": TEXT,
                    }
                )
            ),
            "output_format": words(*FORMATS),
            "quality": words(*dict.fromkeys(told for _, told in QUALITY.values())),
            "size": TEXT,
            "model": TEXT,
            "usage": record(
                {
                    "input_tokens": WHOLE,
                    "output_tokens": WHOLE,
                    "total_tokens": WHOLE,
                    "input_tokens_details": _USAGE_DETAILS,
                    "output_tokens_details": _USAGE_DETAILS,
                }
            ),
            "warning?": TEXT,
            "loras?": _FACTS["loras"],
            "safety_identifier?": TEXT,
        },
        "OpenAI's answer, and the seed of each picture.",
    ),
    "Plan": record(
        {
            "dry_run": FLAG,
            "request": record(
                {
                    "mode": _MODE,
                    "model": TEXT,
                    "prompt": TEXT,
                    "negative_prompt": TEXT_OR_NULL,
                    "width": WHOLE,
                    "height": WHOLE,
                    "native_size": about(
                        WHOLE_OR_NULL, "The side of the square that the model works at."
                    ),
                    "num_inference_steps": WHOLE,
                    "guidance_scale": NUMBER_OR_NULL,
                    "strength": NUMBER_OR_NULL,
                    "seed": about(WHOLE, "Send it to get the picture of this plan."),
                    "n": WHOLE,
                    "loras": _FACTS["loras"],
                    "partial_images": WHOLE,
                    "output_format": words(*FORMATS),
                    "input_images": about(
                        listed(listed(WHOLE)), "Width and height of each."
                    ),
                    "masked": FLAG,
                }
            ),
            "position": about(WHOLE, "How many requests wait in front of it."),
            "expected_seconds": about(
                NUMBER_OR_NULL, "Until it is done; null: nothing was measured yet."
            ),
            "warnings": listed(TEXT),
        },
        "What 'dry_run' tells: the request with every default, and nothing made.",
    ),
    "BflTask": record(
        {
            "id": TEXT,
            "polling_url": TEXT,
            "model": about(TEXT, "The model that is used."),
            "status?": words("Pending"),
            "webhook_url?": TEXT,
        },
        "The request that has begun, and where its result is asked for.",
    ),
    "BflResult": record(
        {
            "id": TEXT,
            "status": words(*STATUSES),
            "result": or_null(
                record(
                    {
                        "sample": about(TEXT, "Where the picture is."),
                        "prompt": TEXT,
                        "seed": WHOLE,
                        "start_time": about(NUMBER, "Seconds since 1970."),
                        "end_time": NUMBER,
                        "duration": NUMBER,
                        "warning?": _FACTS["warning?"],
                    }
                )
            ),
            "progress": about(NUMBER_OR_NULL, "From 0 to 1."),
            "details": or_null(record({"code": TEXT, "message": TEXT})),
            "preview": {"type": "null"},
        }
    ),
    "Job": record(_JOB, "A request on its way; never its prompt."),
    "AcceptedJob": record(
        _JOB | {"links": record({"self": TEXT, "events": TEXT, "result": TEXT})},
        "The job that has begun, and where it can be found.",
    ),
    "Jobs": record({"object": words("list"), "data": listed(ref("Job"))}),
    "Model": record(
        {
            "id": TEXT,
            "object": words("model"),
            "created": WHOLE,
            "owned_by": TEXT,
            "revision?": about(TEXT_OR_NULL, "The commit of its files."),
            "root": about(TEXT, "The model that is meant."),
            "description?": TEXT,
            "known_words?": about(named({}), "All that a small model draws."),
        }
    ),
    "Models": record({"object": words("list"), "data": listed(ref("Model"))}),
    "Loras": record(
        {
            "object": words("list"),
            "data": listed(
                record(
                    {
                        "id": TEXT,
                        "object": words("lora"),
                        "model": about(TEXT_OR_NULL, "Whose own it is, if any's."),
                        "family?": TEXT_OR_NULL,
                        "rank?": WHOLE_OR_NULL,
                        "trigger_words?": listed(TEXT),
                    }
                )
            ),
        }
    ),
    "Capabilities": record(
        {
            "object": words("capabilities"),
            "default_model": TEXT,
            "auth": words("key", "none"),
            "models": listed(
                record(
                    {
                        "id": TEXT,
                        "description": TEXT,
                        "licence": TEXT,
                        "demo": FLAG,
                        "native_size": WHOLE_OR_NULL,
                        "sizes": record(
                            {
                                "multiple": WHOLE,
                                "minimum": WHOLE,
                                "maximum": WHOLE,
                                "max_pixels": WHOLE,
                                "default": listed(WHOLE),
                            }
                        ),
                        "tasks": named(
                            record(
                                {
                                    "num_inference_steps": WHOLE,
                                    "guidance_scale": NUMBER_OR_NULL,
                                    "negative_prompt": FLAG,
                                    "max_input_images": WHOLE,
                                }
                            )
                        ),
                        "examples?": named(listed(TEXT)),
                    }
                )
            ),
            "loras": listed(record({"id": TEXT, "model": TEXT_OR_NULL})),
            "formats": listed(words(*FORMATS)),
            "limits": named({"type": ["number", "boolean"]}),
        }
    ),
    "Status": record(
        {
            "status": words("loading", "ready", "failed", "draining"),
            "reason": TEXT_OR_NULL,
            "progress": or_null(_PROGRESS),
            "asleep": about(FLAG, "Whether the next request waits for the weights."),
            "weights": _WEIGHTS,
            "model": TEXT,
            "running": WHOLE,
            "waiting": WHOLE,
            "memory": or_null(named(WHOLE)),
        }
    ),
    "Health": record({"status": words("ok")}),
    "Ready": record(
        {
            "status": words("ready"),
            "model": TEXT,
            "performance": _FACTS["performance"],
            "performance_note?": about(TEXT, "Why it is not as the server was told."),
            "asleep?": FLAG,
            "weights?": words("host", "dropped"),
            "failed_update?": TEXT,
        }
    ),
    "Asleep": record({"asleep": FLAG, "weights": _WEIGHTS}),
    "NotReady": record({"status": words("not ready"), "reason": TEXT}),
    "Server": record(
        {
            "name": TEXT,
            "models": listed(TEXT),
            "ready": FLAG,
            "not_ready": TEXT_OR_NULL,
            "routes": named(TEXT),
        }
    ),
    "Error": record({"error": about(TEXT, "One sentence.")}),
    "BflError": record(
        {
            "detail": {"anyOf": [TEXT, listed(_PLACE)]},
            "message": about(TEXT, "One sentence."),
            "code": about(TEXT, "A word that does not change."),
            "id?": TEXT,
            "status?": words("Task not found"),
            "result?": {"type": "null"},
        }
    ),
    "SdapiAnswer": record(
        {
            "images": about(listed(TEXT), "Base64."),
            "parameters": named({}),
            "info": about(TEXT, "JSON: seeds, prompts, warnings."),
        }
    ),
    "A1111Error": record(
        {
            "error": about(TEXT, "A word that does not change."),
            "detail": {"anyOf": [TEXT, listed(_PLACE)]},
            "errors": about(TEXT, "One sentence."),
            "body": TEXT,
        }
    ),
    "McpAnswer": record(
        {
            "jsonrpc": words("2.0"),
            "id": {"type": ["string", "number", "null"]},
            "result?": named({}),
            "error?": _RPC_ERROR,
        }
    ),
    "McpError": record(
        {
            "jsonrpc": words("2.0"),
            "id": {"type": ["string", "number", "null"]},
            "error": _RPC_ERROR,
        }
    ),
    "OpenAIError": record(
        {
            "error": record(
                {
                    "message": about(TEXT, "One sentence."),
                    "type": TEXT,
                    "param": about(TEXT_OR_NULL, "The parameter at fault."),
                    "code": about(TEXT_OR_NULL, "A word that does not change."),
                    "minimum?": NUMBER_OR_NULL,
                    "maximum?": NUMBER_OR_NULL,
                    "multiple?": NUMBER_OR_NULL,
                    "given?": about({}, "What was sent, where it was out of range."),
                }
            )
        }
    ),
}
