"""Input pictures of a request: file parts, data URLs, Base64, URLs."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flux_api.core import InputFile
from flux_api.errors import ImageFetchFailed, InvalidImage, InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.body_text import PICTURE_FIELD
from flux_api.http.context import Context
from flux_api.http.model_defaults import Inputs
from flux_api.images.credentials import MOST_BYTES, describe_input
from flux_api.images.data_urls import decode_base64, decode_data_url
from flux_api.images.decoder import is_picture
from flux_api.images.file_notes import credentials_of
from flux_api.images.masks import read_mask
from flux_api.images.recipe import hash_of, parents_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_api.models.info import ModelInfo
    from flux_api.queue.jobs import Job

# As many as OpenAI takes for an edit.
MAX_IMAGES = 16
# For all pictures of a request: sixteen slow ones would hold its place for minutes.
FETCH_SECONDS = 30.0

_WRAPPINGS = ("image_url", "url", "b64_json", "base64")
_DEEPEST_WRAPPING = 3
_DATA_URL = re.compile(r"\s*data:image/", re.IGNORECASE)
_REMOTE = re.compile(r"\s*https?:", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[0-9]{1,3}\s*")

Reference = tuple[str, Any]
"""The parameter's name, and what stands there: bytes, text, or an object of JSON."""


def read_inputs(
    context: Context,
    job: Job,
    body: Body,
    model: ModelInfo,
    *,
    most: int = MAX_IMAGES,
    bearer_token: str | None = None,
) -> Inputs:
    """The pictures of ``body`` by each name that any API has for them, in the order of
    arrival; more than ``model`` ever takes are not even decoded. ``bearer_token`` goes
    to the hosts of URLs. InvalidRequest, InvalidImage or ImageFetchFailed name what is
    wrong; Cancelled when nobody waits for ``job`` any more."""
    warnings: list[str] = []
    given = _gather(body, warnings)
    found, masks = given["image"] or given["url"], given["mask"]
    _check_counts(found, masks, most, model)
    fetch = _Fetch(context, job, time.monotonic() + FETCH_SECONDS, bearer_token)
    is_wanted = fetch.is_wanted
    images: list[Image] = []
    files: list[InputFile] = []
    for param, reference in found:
        data = _read(fetch, param, reference)
        with context.decodes.hold(job.caller, is_wanted):
            images.append(context.decoder.image(data, param=param))
            file = _describe(context, data, reference)
            files.append(_keep_credentials(context, data, file, files, warnings))
    mask = mask_file = None
    for param, reference in masks:
        data = _read(fetch, param, reference)
        mask_file = _describe(context, data, reference)
        with context.decodes.hold(job.caller, is_wanted):
            mask, notes = read_mask(
                context.decoder, data, picture=images[0], param=param
            )
        warnings += notes
    if context.settings.filter and body.values.get("partial_images"):
        warnings.append("No previews: a content filter looks at finished pictures.")
    return Inputs(tuple(images), mask, tuple(warnings), tuple(files), mask_file)


def _describe(context: Context, data: bytes, reference: Any) -> InputFile:
    server = context.file_server
    is_text = server is not None and isinstance(reference, str)
    stored = server.name_of(reference) if server and is_text else None
    return InputFile(hash_of(data), parents_of(data), stored)


def _keep_credentials(
    context: Context,
    data: bytes,
    file: InputFile,
    before: list[InputFile],
    warnings: list[str],
) -> InputFile:
    """``file`` with the content credentials in ``data``, where pictures are signed."""
    if context.signer is None:
        return file
    index, room = len(before), MOST_BYTES - sum(len(f.credentials) for f in before)
    described = describe_input(index)
    credentials, why = credentials_of(context.decoder, data, described, room)
    if why:
        warnings.append(
            f"The content credentials of input picture {index + 1} are not kept: they "
            f"{why}."
        )
    return replace(file, credentials=credentials)


def _gather(body: Body, warnings: list[str]) -> dict[str, list[Reference]]:
    """What stands in the fields of pictures, by kind of field."""
    given: dict[str, list[Reference]] = {"image": [], "url": [], "mask": []}
    files = {upload.name for upload in body.uploads}
    for name, value in body.parts:
        match = PICTURE_FIELD.fullmatch(name)
        if match is None:
            if name in files or _holds_picture(value):
                raise _unknown_picture(name)
            continue
        kind = match.lastgroup or ""
        for item in value if isinstance(value, list) else [value]:
            # What forms and proxies send for a field that was left empty.
            if item in (None, "", {}):
                continue
            # Some proxies send an object's name along with the file that it is.
            if name in files and isinstance(item, str) and not _is_picture(item):
                warnings.append(
                    f"The text '{match[kind]}' beside the file was ignored."
                )
            else:
                given[kind].append((match[kind], item))
    if given["image"] and given["url"]:
        param = given["image"][0][0]
        warnings.append(f"'input_image_url' was ignored: '{param}' wins.")
    return given


def check_files(body: Body) -> None:
    """InvalidRequest where a file has a name that no picture has."""
    for upload in body.uploads:
        if not PICTURE_FIELD.fullmatch(upload.name):
            raise _unknown_picture(upload.name)


def _holds_picture(value: object) -> bool:
    """Whether a data URL of a picture stands in ``value``, JSON."""
    if isinstance(value, dict):
        return any(map(_holds_picture, value.values()))
    if isinstance(value, list):
        return any(map(_holds_picture, value))
    return isinstance(value, str) and bool(_DATA_URL.match(value))


def _unknown_picture(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"A file is not expected as '{name[:64]}': send a picture as 'image' or "
        "'input_file', what to repaint as 'mask', and anything else as text.",
        param=name[:64],
    )


def _is_picture(text: str) -> bool:
    if _REMOTE.match(text):
        return True
    try:
        return is_picture(decode_text(text, param=""))
    except InvalidImage:
        return False


def _check_counts(
    found: list[Reference], masks: list[Reference], most: int, model: ModelInfo
) -> None:
    # Only /process takes fewer pictures than there may be.
    several = "" if most == MAX_IMAGES else "; several go to /v1/images/edits"
    _check_count(found, most, several)
    _check_count(masks, 1)
    if masks and not found:
        raise InvalidRequest("A mask needs the picture that it is for.", param="mask")
    if found:
        # Which task it is depends on the pictures; none takes more than this one.
        widest = max(model.tasks.values(), key=lambda task: task.max_images)
        widest.check(len(found), None, param=found[0][0])


def _check_count(given: list[Reference], most: int, advice: str = "") -> None:
    for param, reference in given:
        if _is_number(reference):
            message = (
                f"Invalid '{param}': a list of numbers. Send the picture as a file, or "
                "as Base64."
            )
            raise InvalidRequest(message, param=param, code="invalid_type")
    if len(given) > most:
        param = given[0][0]
        message = (
            f"Invalid '{param}': at most {most} may be sent, but got {len(given)}"
            f"{advice}."
        )
        raise InvalidRequest(message, param=param, code="array_above_max_length")


def _is_number(reference: Any) -> bool:
    """What a JavaScript Buffer or Uint8Array becomes in a form or in JSON."""
    if isinstance(reference, dict):
        return reference.get("type") == "Buffer" or all(map(_is_number, reference))
    if isinstance(reference, list):
        return bool(reference) and _is_number(reference[0])
    if isinstance(reference, str):
        return bool(_NUMBER.fullmatch(reference))
    return isinstance(reference, int) and not isinstance(reference, bool)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Fetches the pictures of one request until a monotonic time."""

    context: Context
    job: Job
    until: float
    token: str | None

    def __call__(self, url: str, param: str) -> bytes:
        if time.monotonic() > self.until:
            raise ImageFetchFailed(f"cannot fetch {param} in time", param=param)
        with self.context.fetches.hold(self.job.caller, self.is_wanted):
            try:
                return self.context.fetcher.fetch(
                    url,
                    bearer_token=self.token,
                    param=param,
                    is_wanted=self.is_wanted,
                    traceparent=self.job.traceparent,
                )
            except ImageFetchFailed:
                # A fetch that was given up for want of a client is no fault of the URL.
                self.job.check()
                raise

    def is_wanted(self) -> bool:
        return self.job.is_wanted


def _read(fetch: _Fetch, param: str, reference: Any) -> bytes:
    fetch.job.check()
    if isinstance(reference, bytes):
        if not reference:
            raise InvalidImage(f"{param} is an empty file", param=param)
        return reference
    text = _unwrap(reference, param)
    if _REMOTE.match(text):
        return fetch(text, param)
    if param == "input_image_url" and not _is_data(text):
        message = f"{param} is not an http, https or data URL."
        raise InvalidRequest(message, param=param)
    return decode_text(text, param=param)


def _is_data(text: str) -> bool:
    return text.lstrip()[:5].lower() == "data:"


def decode_text(text: str, *, param: str) -> bytes:
    """The bytes of a data URL, or of bare Base64; InvalidImage."""
    text = text.strip()
    decode = decode_data_url if _is_data(text) else decode_base64
    return decode(text, param=param)


def _unwrap(reference: Any, param: str) -> str:
    """The text in ``{"image_url": ...}``, ``{"image_url": {"url": ...}}``,
    ``{"url": ...}``, ``{"b64_json": ...}``, ``{"base64": ...}`` or as it stands."""
    for _ in range(_DEEPEST_WRAPPING):
        if isinstance(reference, str):
            return reference
        if not isinstance(reference, dict):
            break
        if reference.get("file_id") is not None:
            message = "'file_id' is not supported: send a data URL or a form file."
            raise InvalidRequest(message, param="images" if param == "image" else param)
        reference = next(
            (reference[k] for k in _WRAPPINGS if reference.get(k) is not None), None
        )
    message = f"Invalid '{param}': expected a file, a URL or Base64."
    raise InvalidRequest(message, param=param, code="invalid_type")
