"""Images in a bucket of an S3-compatible service; imported only when chosen."""

from __future__ import annotations

import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .errors import FileMissing, StorageFull, StorageUnavailable
from .media import HEAD_BYTES, is_name, is_ours, media_type, new_name
from .storage import SMALL_BYTES, Latest, StoredFile, Usage, measure

LATEST = "latest.json"
# Other processes store and remove in the same bucket.
RECOUNT_SECONDS = 60.0
_ABSENT = ("404", "NoSuchKey", "NotFound")


class S3Storage:
    """Images as objects ``<prefix><name>``; the newest is named by ``latest.json``.

    An S3 PUT is whole or nothing, and the last PUT of ``latest.json`` wins, so the
    order of uploads needs no lock. Endpoint, region and keys come the boto3 way.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        max_total: int = 0,
        ttl: float = 0.0,
        client: Any = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.max_total = max_total
        self.ttl = ttl
        self._client = client or _connect()
        self._clock = clock
        # Held while objects are counted, which takes calls; and for sums alone.
        self._counting, self._lock = threading.Lock(), threading.Lock()
        self._used = 0
        # Bytes of uploads that are under way.
        self._coming = 0
        self._counted_at = -math.inf

    def save(self, source: BinaryIO, extension: str, recipe: bytes = b"") -> str:
        """Store ``source`` as one object and its ``recipe`` as another, make it the
        latest, return its new name."""
        size = measure(source)
        name = new_name(extension)
        with self._room_for(size + len(recipe)), _translated():
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.prefix + name,
                Body=source,
                ContentLength=size,
                ContentType=media_type(extension),
                **self._lifetime(),
            )
            try:
                if recipe:
                    self._put_json(self._beside(name), recipe)
                mark = json.dumps({"name": name, "uploaded_ns": self._clock()})
                self._put_json(self.prefix + LATEST, mark.encode())
            except (ClientError, BotoCoreError):
                # Else a picture would lie there whose name nobody was told.
                with suppress(ClientError, BotoCoreError):
                    self._remove(name)
                raise
        return name

    @contextmanager
    def _room_for(self, size: int) -> Iterator[None]:
        """Count ``size`` bytes from now on, unless the block fails; StorageFull where
        they are too many."""
        with self._counting:
            self._require_quota(size)
            with self._lock:
                self._coming += size
        stored = 0
        try:
            yield
            stored = size
        finally:
            with self._lock:
                self._coming -= size
                self._used += stored

    def _remove(self, name: str) -> None:
        # A delete of what is not there is none.
        for key in (self.prefix + name, self._beside(name)):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def _lifetime(self) -> dict[str, Any]:
        """What the bucket itself tells of a new picture where browsers read from it. An
        age would begin anew with each of them: an end that is fixed is a date."""
        if not self.ttl:
            return {"CacheControl": "public, max-age=31536000, immutable"}
        end = datetime.fromtimestamp(self._clock() / 1e9 + self.ttl, UTC)
        return {"CacheControl": "public, immutable", "Expires": end}

    def open(self, name: str) -> StoredFile:
        """Fetch the first bytes of an object; its stream fetches the rest when read."""
        key = self.prefix + name
        with _translated():
            try:
                # One call for the first bytes and the size of all.
                answer = self._client.get_object(
                    Bucket=self.bucket, Key=key, Range=f"bytes=0-{HEAD_BYTES - 1}"
                )
                head = answer["Body"].read()
                size = int(answer["ContentRange"].rpartition("/")[2])
            except ClientError as error:
                # An empty object has no first byte to give.
                if error.response["Error"]["Code"] != "InvalidRange":
                    raise
                answer = self._client.head_object(Bucket=self.bucket, Key=key)
                head, size = b"", 0
        stream = cast(BinaryIO, ObjectStream(self._client, self.bucket, key, size))
        return StoredFile(name, size, answer["LastModified"], head, stream)

    def recipe(self, name: str) -> bytes:
        """Fetch a recipe's object."""
        with _translated():
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)
            return bytes(answer["Body"].read())

    def latest(self) -> Latest:
        """Return the newest upload; by the objects' times when the mark is lost."""
        mark = self._read_mark()
        if mark is not None:
            return mark
        found = [(at, name) for name, _, at in self._objects()]
        if not found:
            raise FileMissing("Nothing has been uploaded yet.")
        at, name = max(found)
        return Latest(name, at)

    def remove_expired(self, before: datetime) -> int:
        """Remove objects older than ``before`` but never the latest; say how many."""
        old = [name for name, _, at in self._objects() if at < before]
        if not old:
            return 0
        keep = self.latest().name
        gone = [name for name in old if name != keep]
        with _translated():
            for name in gone:
                self._remove(name)
        return len(gone)

    def usage(self) -> Usage:
        """Count what is stored; a bucket has no end."""
        found = list(self._objects(is_ours))
        files = sum(is_name(name) for name, _, _ in found)
        return Usage(files, sum(size for _, size, _ in found), None)

    def check(self) -> None:
        """Ask for the bucket: proves that it is there and the keys are right. Whether
        there is room is known by the last count, as listing costs too much for this;
        the next upload that needs it counts anew."""
        with _translated():
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                raise StorageUnavailable from error
        if self.max_total and self._used + SMALL_BYTES > self.max_total:
            raise StorageFull

    def _put_json(self, key: str, body: bytes) -> None:
        kind = "application/json"
        self._client.put_object(
            Bucket=self.bucket, Key=key, Body=body, ContentType=kind
        )

    def _read_mark(self) -> Latest | None:
        with _translated():
            try:
                key = self.prefix + LATEST
                answer = self._client.get_object(Bucket=self.bucket, Key=key)
                mark = json.loads(answer["Body"].read())
                name, uploaded = str(mark["name"]), int(mark["uploaded_ns"])
                if not is_name(name):
                    return None
                uploaded_at = datetime.fromtimestamp(uploaded / 1e9, UTC)
                self._client.head_object(Bucket=self.bucket, Key=self.prefix + name)
            except ClientError as error:
                if error.response["Error"]["Code"] in _ABSENT:
                    return None
                raise
            except (ValueError, KeyError, TypeError, OverflowError):
                return None
        return Latest(name, uploaded_at)

    def _beside(self, name: str) -> str:
        return f"{self.prefix}{name.partition('.')[0]}.json"

    def _objects(
        self, wanted: Callable[[str], bool] = is_name
    ) -> Iterator[tuple[str, int, datetime]]:
        with _translated():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                for entry in page.get("Contents", []):
                    name = str(entry["Key"])[len(self.prefix) :]
                    if wanted(name):
                        yield name, int(entry["Size"]), entry["LastModified"]

    def _require_quota(self, size: int) -> None:
        if not self.max_total:
            return
        stale = time.monotonic() - self._counted_at >= RECOUNT_SECONDS
        if stale or self._used + self._coming + size > self.max_total:
            # Listing costs a call per thousand objects: not for every upload. What is
            # stored in this moment may count twice, until the next time.
            self._used = sum(length for _, length, _ in self._objects(is_ours))
            self._counted_at = time.monotonic()
        if self._used + self._coming + size > self.max_total:
            raise StorageFull


class ObjectStream(io.RawIOBase):
    """A seekable stream over one object; asks the service at the first read."""

    def __init__(self, client: Any, bucket: str, key: str, size: int) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._size = size
        self._at = 0
        self._body: Any = None

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether its place can be changed: always."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; what was being fetched is dropped."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}
        self._drop()
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read up to ``len(buffer)`` bytes; 0 at the end."""
        if self._at >= self._size:
            return 0
        if self._body is None:
            with _translated():
                answer = self._client.get_object(
                    Bucket=self._bucket, Key=self._key, Range=f"bytes={self._at}-"
                )
            self._body = answer["Body"]
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Give the connection back."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def _connect() -> Any:
    config = Config(
        # Short: a caller waits meanwhile.
        connect_timeout=3,
        read_timeout=10,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=32,
    )
    return boto3.client("s3", config=config)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"].get("HTTPStatusCode")
        if code in _ABSENT:
            raise FileMissing from None
        if status == 507 or "Quota" in code or "StorageFull" in code:
            raise StorageFull from error
        raise StorageUnavailable from error
    except BotoCoreError as error:
        raise StorageUnavailable from error
