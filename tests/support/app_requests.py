"""What apps send to an images API, byte for byte: their headers, their field order.

``HOST``, ``KEY`` and ``LENGTH`` in the headers, ``<PNG>``, ``<PNG64>`` (in Base64) and
``<MASK>`` in the bodies are filled in.
"""

from __future__ import annotations

import json

from tests.support.raw_requests import AppRequest, parts

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"

# -- Open WebUI: aiohttp ---------------------------------------------------------

_AIOHTTP = (
    ("Host", "HOST"),
    ("Authorization", "Bearer KEY"),
    ("Content-Type", "application/json"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("User-Agent", "Python/3.11 aiohttp/3.14.5"),
    ("Content-Length", "LENGTH"),
)
_AIOHTTP_BOUNDARY = "a8b14a86fa4742c2ae55115cb6576a9b"
_AIOHTTP_FORM = (
    *(header for header in _AIOHTTP if header[0] not in ("Content-Type",)),
    ("Content-Type", f"multipart/form-data; boundary={_AIOHTTP_BOUNDARY}"),
)
_UUID = "7f1c3b1e-5f0e-4f43-9a55-0d6a4a3c2f10.png"


def _webui(what, path, size=None, /, **values):
    body = json.dumps(values).encode()
    return AppRequest("open-webui", what, path, _AIOHTTP, body, size=size)


def _webui_edit(what, *fields, size=None):
    body = parts(_AIOHTTP_BOUNDARY, fields, type_first=True)
    return AppRequest("open-webui", what, EDITS, _AIOHTTP_FORM, body, size=size)


OPEN_WEBUI = [
    _webui(
        *("a picture, no model chosen", GENERATIONS, "512x512"),
        **{"model": "dall-e-2", "prompt": "a red heart", "n": 1},
        **{"size": "512x512", "response_format": "b64_json"},
    ),
    _webui(
        *("a picture with parameters of its own", f"{GENERATIONS}?api-version=2", None),
        **{"model": "tiny", "prompt": "a red heart", "n": 2, "size": "256x256"},
        **{"response_format": "b64_json", "steps": 4, "seed": 7},
    ),
    _webui(
        *("a picture, gpt-image-1, size auto", GENERATIONS),
        **{"model": "gpt-image-1", "prompt": "a red heart", "n": 1, "size": "auto"},
    ),
    _webui_edit(
        "an edit",
        *(("model", ""), ("prompt", "make it blue"), ("n", "1")),
        *(("size", "512x512"), ("response_format", "b64_json")),
        ("image", _UUID, "image/png", b"<PNG>"),
        size="512x512",
    ),
    _webui_edit(
        "an edit, pictures as a list",
        *(("model", "gpt-image-1"), ("prompt", "make it blue")),
        *(("background", "auto"), ("image[]", _UUID, "image/png", b"<PNG>")),
    ),
]

# -- LiteLLM: the Python SDK, and httpx for edits --------------------------------

_PYTHON_SDK = (
    *(("Host", "HOST"), ("Accept-Encoding", "gzip, deflate")),
    *(("Connection", "keep-alive"), ("Authorization", "Bearer KEY")),
    *(("Accept", "application/json"), ("Content-Type", "application/json")),
    *(("User-Agent", "OpenAI/Python 2.54.0"), ("X-Stainless-Lang", "python")),
    *(("X-Stainless-Package-Version", "2.54.0"), ("X-Stainless-OS", "Linux")),
    *(("X-Stainless-Arch", "x64"), ("X-Stainless-Runtime", "CPython")),
    *(("X-Stainless-Runtime-Version", "3.11.7"), ("X-Stainless-Async", "false")),
    *(("X-Stainless-Raw-Response", "true"), ("x-stainless-retry-count", "0")),
    *(("x-stainless-read-timeout", "600"), ("Content-Length", "LENGTH")),
)
_HTTPX_BOUNDARY = "ae9e83e668cf71fc505c0d383d877ac7"
_HTTPX_FORM = (
    *(("Host", "HOST"), ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate")),
    *(("Connection", "keep-alive"), ("User-Agent", "litellm/1.106.2")),
    *(("Authorization", "Bearer KEY"), ("Content-Length", "LENGTH")),
    ("Content-Type", f"multipart/form-data; boundary={_HTTPX_BOUNDARY}"),
)


def _compact(**values):
    return json.dumps(values, separators=(",", ":")).encode()


LITELLM = [
    AppRequest(
        *("litellm", "a picture with free arguments", GENERATIONS, _PYTHON_SDK),
        _compact(prompt="a duck", model="tiny", n=2, size="64x64", seed=7, steps=2),
        *("either", "64x64"),
    ),
    AppRequest(
        *("litellm", "a picture, extra_headers in the body", GENERATIONS, _PYTHON_SDK),
        _compact(
            **{"prompt": "a duck", "model": "gpt-image-1", "quality": "low"},
            **{"size": "64x64", "extra_headers": {"x-a": "b"}},
        ),
        *("b64_json", "64x64"),
    ),
    AppRequest(
        *("litellm", "an edit with a mask, a path as file name", EDITS, _HTTPX_FORM),
        parts(
            _HTTPX_BOUNDARY,
            [
                *(("model", "gpt-image-1"), ("size", "64x64"), ("seed", "7")),
                ("prompt", "a duck"),
                ("image[]", "/home/me/pictures/in.png", "image/png", b"<PNG>"),
                ("mask", "/home/me/pictures/mask.png", "image/png", b"<MASK>"),
            ],
        ),
        *("b64_json", "64x64"),
    ),
]

# -- LibreChat: the Node SDK, axios with form-data for edits ---------------------

_NODE_SDK = (
    *(("host", "HOST"), ("connection", "keep-alive")),
    *(("accept", "application/json"), ("content-type", "application/json")),
    *(("user-agent", "OpenAI/JS 6.49.0"), ("x-stainless-retry-count", "0")),
    *(("x-stainless-lang", "js"), ("x-stainless-package-version", "6.49.0")),
    *(("x-stainless-os", "Linux"), ("x-stainless-arch", "x64")),
    *(("x-stainless-runtime", "node"), ("x-stainless-runtime-version", "v20.20.2")),
    *(("authorization", "Bearer KEY"), ("accept-language", "*")),
    *(("sec-fetch-mode", "cors"), ("accept-encoding", "gzip, deflate")),
    ("content-length", "LENGTH"),
)
_AXIOS_BOUNDARY = "--------------------------e01fa23972446bf14317afe0"
_AXIOS_FORM = (
    ("Accept", "application/json, text/plain, */*"),
    ("Content-Type", f"multipart/form-data; boundary={_AXIOS_BOUNDARY}"),
    *(("Authorization", "Bearer KEY"), ("User-Agent", "axios/1.21.1")),
    *(("Content-Length", "LENGTH"), ("Accept-Encoding", "gzip, compress, deflate, br")),
    *(("Host", "HOST"), ("Connection", "keep-alive")),
)


def _librechat(what, reads="b64_json", size=None, /, kind="image/png", **values):
    return AppRequest(
        *("librechat", what, GENERATIONS, _NODE_SDK, _compact(**values), reads),
        *(size, kind),
    )


LIBRECHAT = [
    _librechat(
        "a picture (image_gen_oai)",
        **{"model": "gpt-image-1", "prompt": "a duck", "n": 1, "background": "auto"},
        **{"output_format": "png", "quality": "auto", "size": "auto"},
    ),
    _librechat(
        "a picture as WebP (image_gen_oai)",
        kind="image/webp",
        **{"model": "gpt-image-1", "prompt": "a duck", "n": 1, "background": "auto"},
        **{"output_format": "webp", "output_compression": 80},
        **{"quality": "auto", "size": "auto"},
    ),
    AppRequest(
        *("librechat", "an edit (image_edit_oai)", EDITS, _AXIOS_FORM),
        parts(
            _AXIOS_BOUNDARY,
            [
                *(("model", "gpt-image-1"), ("prompt", "a duck"), ("quality", "auto")),
                *(("size", "auto"), ("image[]", "in.png", "image/png", b"<PNG>")),
            ],
        ),
    ),
    _librechat(
        "a picture (DALLE3)",
        "url",
        "1792x1024",
        **{"model": "dall-e-3", "quality": "standard", "style": "vivid"},
        **{"size": "1792x1024", "prompt": "a duck", "n": 1},
    ),
]

# -- Vercel AI SDK: Node's fetch -------------------------------------------------

_UNDICI_BOUNDARY = "----formdata-undici-094147519912"
_VERCEL = (
    *(("host", "HOST"), ("connection", "keep-alive")),
    *(("authorization", "Bearer KEY"), ("content-type", "application/json")),
    ("user-agent", "ai/7.0.173 ai-sdk-provider-utils/5.0.81 node.js/v20.20.2"),
    *(("accept", "*/*"), ("accept-language", "*"), ("sec-fetch-mode", "cors")),
    *(("accept-encoding", "gzip, deflate"), ("content-length", "LENGTH")),
)
_VERCEL_FORM = tuple(
    (name, f"multipart/form-data; boundary={_UNDICI_BOUNDARY}")
    if name == "content-type"
    else (name, value)
    for name, value in _VERCEL
)
VERCEL = [
    AppRequest(
        *("vercel-ai-sdk", "openai-compatible, two pictures", GENERATIONS, _VERCEL),
        _compact(model="tiny", prompt="a duck", n=2, size="64x64", seed=7, steps=2),
        *("either", "64x64"),
    ),
    AppRequest(
        *("vercel-ai-sdk", "openai-compatible, an edit", EDITS, _VERCEL_FORM),
        parts(
            _UNDICI_BOUNDARY,
            [
                *(("model", "tiny"), ("prompt", "a duck")),
                ("image", "blob", "image/png", b"<PNG>"),
                ("mask", "blob", "image/png", b"<MASK>"),
                *(("n", "1"), ("size", "64x64")),
            ],
        ),
        *("either", "64x64"),
    ),
    AppRequest(
        *("vercel-ai-sdk", "openai, a picture", GENERATIONS, _VERCEL),
        _compact(
            **{"model": "tiny", "prompt": "a duck", "n": 1, "size": "64x64"},
            **{"response_format": "b64_json"},
        ),
        *("b64_json", "64x64"),
    ),
    AppRequest(
        *("vercel-ai-sdk", "openai, an edit", EDITS, _VERCEL_FORM),
        parts(
            _UNDICI_BOUNDARY,
            [
                *(("model", "gpt-image-1"), ("prompt", "a duck")),
                ("image", "blob", "image/png", b"<PNG>"),
                *(("n", "1"), ("size", "64x64"), ("quality", "low")),
            ],
        ),
        *("b64_json", "64x64"),
    ),
]

# -- others: codex, LangChain's DALL-E wrapper, an xAI-style client ---------------

OTHERS = [
    AppRequest(
        *("codex", "a picture", GENERATIONS, _PYTHON_SDK),
        _compact(
            **{"prompt": "a duck", "model": "gpt-image-1.5", "background": "auto"},
            **{"n": 1, "quality": "auto", "size": "auto"},
        ),
    ),
    AppRequest(
        *("codex", "an edit", EDITS, _PYTHON_SDK),
        b'{"images":[{"image_url":"data:image/png;base64,<PNG64>"}],'
        b'"prompt":"a duck","model":"gpt-image-1.5","quality":"high"}',
    ),
    AppRequest(
        *("langchain", "a picture", GENERATIONS, _PYTHON_SDK),
        _compact(
            **{"model": "dall-e-2", "prompt": "a duck", "n": 1},
            **{"size": "1024x1024", "quality": "standard"},
        ),
        *("url", "1024x1024"),
    ),
    AppRequest(
        *("xai style", "an edit", EDITS, _PYTHON_SDK),
        b'{"model":"gpt-image-1","prompt":"a duck","image":{"type":"image_url",'
        b'"url":"data:image/png;base64,<PNG64>"},"response_format":"b64_json"}',
    ),
]
