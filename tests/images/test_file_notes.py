"""What children tell of files is not believed: one may have been taken over."""

from __future__ import annotations

import pytest

from flux_api.errors import InvalidImage
from flux_api.images.file_notes import texts_of


class Lying:
    """A decoder whose child says what a file makes it say."""

    def __init__(self, told):
        self._told = told

    def tell(self, data, wanted, most):
        """Whatever is asked for."""
        return self._told


@pytest.mark.parametrize(
    "told",
    [b"", b"{", b"\xff", b"[]", b'{"a": 1}', b'{"a": {}}', b"[" * 100_000],
    ids=["nothing", "cut", "bytes", "list", "number", "object", "deep"],
)
def test_texts_are_texts_or_the_picture_is_damaged(told):
    with pytest.raises(InvalidImage) as caught:
        texts_of(Lying(told), b"", param="image")
    assert (caught.value.message, caught.value.param) == ("image is damaged", "image")
    assert texts_of(Lying(b'{"a": "b"}'), b"", param="image") == {"a": "b"}
