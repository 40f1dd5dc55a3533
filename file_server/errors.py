"""The errors that a caller of the file server can be told about.

    FileServerError
    ├── BadUpload            400
    ├── Unauthorized         401
    ├── Forbidden            403
    ├── FileMissing          404
    ├── TooSlow              408
    ├── TooLarge             413
    ├── NotAnImage           415
    ├── StorageUnavailable   503
    └── StorageFull          507

``SettingsError`` stands apart: it stops the start and is never rendered.
A message is one sentence for the caller, never a path, a token or a traceback.
"""

from __future__ import annotations

ABOUT = (
    "This server keeps pictures and makes none: for /v1, /process and the page ask the "
    "Flux Imaging API, another server, on port 8000 unless it was set up otherwise."
)
"""For whoever takes this server for the other one."""


class FileServerError(Exception):
    """A failure with its HTTP ``status`` and the ``headers`` that belong to it."""

    status = 500
    headers: dict[str, str] = {}
    default = "The server failed to answer this request."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default)
        self.message = message or self.default


class BadUpload(FileServerError):
    """A body without a usable file in it."""

    status = 400
    default = "Send one image as multipart/form-data in the field 'file'."


class Unauthorized(FileServerError):
    """No bearer token came along."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}
    default = "This address needs the header 'Authorization: Bearer <token>'."


class Forbidden(FileServerError):
    """A bearer token that is not the right one."""

    status = 403
    default = "The bearer token is not the right one."


class FileMissing(FileServerError):
    """No such file, or nothing that may be served under that name."""

    status = 404
    default = "There is no such file."


class TooSlow(FileServerError):
    """A body that came too slowly, or stopped."""

    status = 408
    default = "The upload came too slowly."


class TooLarge(FileServerError):
    """A file or a body over the limit."""

    status = 413
    default = "The upload is larger than this server accepts."


class NotAnImage(FileServerError):
    """Bytes of a kind that is not stored."""

    status = 415
    default = "The file is not a PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF image."


class StorageUnavailable(FileServerError):
    """The storage cannot be reached or written now; worth another try later."""

    status = 503
    headers = {"Retry-After": "10"}
    default = "The storage cannot be used at the moment."


class StorageFull(FileServerError):
    """The disk, its quota or the configured limit has no room for this file."""

    status = 507
    default = "There is no room left for this file."


class SettingsError(ValueError):
    """A wrong setting; the text names the variable and its (masked) value."""
