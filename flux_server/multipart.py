"""Forms whose files have names in other encodings than UTF-8, as those out of archives
from Japanese Windows do. Both servers look at no file's name."""

from __future__ import annotations

from werkzeug.datastructures import Headers
from werkzeug.sansio.multipart import MultipartDecoder

# No name is longer, and what is no text takes three times its room.
_LONGEST_HEAD = 8192


class LenientDecoder(MultipartDecoder):
    """Werkzeug's decoder, to which a part's head that is not UTF-8 is no broken form:
    what cannot be read of it becomes U+FFFD."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        if len(data) <= _LONGEST_HEAD:
            data = data.decode("utf-8", "replace").encode()
        return super()._parse_headers(data)
