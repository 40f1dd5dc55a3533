"""Full disks, quotas, storage that is away: honest answers, and recovery."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from file_server.errors import FileMissing, StorageFull, StorageUnavailable
from file_server.s3 import S3Storage
from tests.file_server.serving import AUTH, PNG_MAGIC, fact, picture, sealed
from tests.support.programs import need

MB = 1024 * 1024


def in_own_mounts(script):
    """A command line's start that runs a shell script in mounts of its own.

    They end with the process, however it ends; without root it becomes root there.
    """
    flags = "-m" if os.geteuid() == 0 else "-Urm"
    probe = [need("unshare"), flags, "true"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this system lets no process have mounts of its own")
    return ("unshare", flags, "sh", "-ec", f'{script}\nexec "$@"', "sh")


def assert_refused(answer, status):
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "/" not in answer.json()["error"]


def assert_not_ready(server):
    answer = server.get("/readyz")
    assert_refused(answer, 503)
    assert answer.json()["error"] == "There is no room left for pictures."
    numbers = server.get("/metrics", headers=AUTH).text.splitlines()
    assert "flux_files_ready 0.0" in numbers
    # How full it is can be told all the same.
    assert any(line.startswith("flux_files_stored_bytes ") for line in numbers)


def assert_fully_alive(server, old):
    assert server.get(old).content == sealed(1)
    assert server.get("/healthz").status_code == 200
    assert server.latest().status_code == 200
    assert server.get("/latest/raw", headers=AUTH).status_code == 200


@fact("6-enospc")
def test_a_full_disk_is_507_until_there_is_room_again(serve, folder):
    mounted = in_own_mounts(f"mount -t tmpfs -o size=4m tmpfs {folder.path}")
    # Uploads are spooled there too: wherever the disk is full, it is a 507.
    tmpdir = str(folder.path)
    server = serve(prefix=mounted, TMPDIR=tmpdir, **folder.settings)
    disk = Path(f"/proc/{server.process.pid}/root{folder.path}")
    old = server.stored(sealed(1))
    assert server.upload(sealed(2, MB)).status_code == 200
    latest = server.latest().json()
    for size in (5 * MB, 3 * MB, 3 * MB):
        assert_refused(server.upload(sealed(3, size)), 507)
    assert_fully_alive(server, old)

    with contextlib.suppress(OSError), open(disk / "ballast", "wb", 0) as ballast:
        while True:
            ballast.write(bytes(4096))
    for size in (100, 50_000, 900_000):
        assert_refused(server.upload(sealed(4, size)), 507)
    assert_fully_alive(server, old)
    assert server.latest().json() == latest
    assert not [p for p in disk.iterdir() if p.name.endswith(".part")]

    (disk / "ballast").unlink()
    path = server.stored(sealed(5))
    assert server.latest_path() == path
    assert server.get(path).content == sealed(5)


@pytest.mark.parametrize("size", [450_000, 900_000], ids=["storing", "spooling"])
@fact("6-efbig")
def test_a_file_too_big_for_the_system_is_507(serve, folder, size):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    server = serve(options={"preexec_fn": limit}, **folder.settings)
    old = server.stored(sealed(1))
    assert_refused(server.upload(sealed(2, size)), 507)
    assert_fully_alive(server, old)
    assert server.latest_path() == old
    assert server.upload().status_code == 200


@fact("6-quota")
def test_the_total_is_kept_and_room_can_be_made(kind, new_place, serve):
    place = new_place(kind)
    server = serve(FILES_MAX_TOTAL_MB="0.5", **place.settings)
    old = server.stored(sealed(1))
    filler = server.stored(sealed(2, 380_000))
    for _ in range(2):
        assert_refused(server.upload(sealed(3)), 507)
    assert_not_ready(server)
    assert_fully_alive(server, old)
    assert server.latest_path() == filler
    small = server.stored(sealed(4, 1000))
    place.remove(filler.removeprefix("/i/"))
    path = server.stored(sealed(5))
    assert server.get("/readyz").status_code == 200
    assert server.latest_path() == path
    for kept in (old, small, path):
        assert server.get(kept).status_code == 200


@fact("6-quota")
def test_a_bucket_is_not_listed_for_every_upload(new_place):
    place, listed = new_place("s3"), []
    events, name = place.client.meta.events, "before-call.s3.ListObjectsV2"
    note = lambda **_: listed.append(1)  # noqa: E731
    storage = place.storage(max_total=12_000)
    events.register(name, note)
    try:
        for number in range(4):
            storage.save(io.BytesIO(sealed(number, 1000)), "png")
        assert len(listed) == 1
        # What seems too much may have made room meanwhile.
        storage.save(io.BytesIO(sealed(9, 6000)), "png")
        with pytest.raises(StorageFull):
            storage.save(io.BytesIO(sealed(10, 3000)), "png")
        assert len(listed) == 2
    finally:
        events.unregister(name, note)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, FileMissing),
        # Of HEAD, whose answer has no body to say more in.
        ("404", 404, FileMissing),
        ("QuotaExceeded", 403, StorageFull),
        ("XMinioStorageFull", 507, StorageFull),
        ("Other", 507, StorageFull),
        ("AccessDenied", 403, StorageUnavailable),
        ("SlowDown", 503, StorageUnavailable),
    ],
)
def test_what_a_bucket_says_is_told_as_what_it_is(code, status, kind):
    said = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

    class Refusing:
        """Services that refuse so are not at hand."""

        def get_object(self, **_):
            raise ClientError(said, "GetObject")

    with pytest.raises(kind):
        S3Storage("bucket", client=Refusing()).recipe(f"{'0' * 32}.json")


@fact("6-quota-races")
def test_racing_uploads_do_not_pass_the_total_together(serve, folder):
    server = serve(FILES_MAX_TOTAL_MB="0.5", **folder.settings)
    answers = []

    def send(number):
        answers.append(server.upload(sealed(number)).status_code)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 5 + [507] * 5
    sizes = [p.stat().st_size for p in folder.path.glob("*.png")]
    assert sum(sizes) <= MB // 2


@fact("6-min-free")
def test_the_free_space_asked_for_is_left(serve, folder):
    mounted = in_own_mounts(f"mount -t tmpfs -o size=4m tmpfs {folder.path}")
    server = serve(prefix=mounted, FILES_MIN_FREE_MB="3", **folder.settings)
    old = server.stored(sealed(1))
    assert_refused(server.upload(sealed(2, 950_000)), 507)
    assert_fully_alive(server, old)
    assert server.get("/readyz").status_code == 200
    assert server.upload(sealed(3)).status_code == 200
    greedy = serve(prefix=mounted, FILES_MIN_FREE_MB="5", **folder.settings)
    assert_refused(greedy.upload(picture()), 507)
    assert_not_ready(greedy)


@fact("W18-read-only")
def test_a_read_only_folder_serves_and_says_that_it_is_not_ready(serve, folder):
    server = serve(**folder.settings)
    old = server.stored(sealed(1))
    (folder.path / f".{'1' * 32}.png.part").write_bytes(b"left over")
    mounted = in_own_mounts(
        f"mount --bind {folder.path} {folder.path}\n"
        f"mount -o remount,bind,ro {folder.path}"
    )
    frozen = serve(prefix=mounted, FILES_TTL_HOURS="1e-9", **folder.settings)
    assert_refused(frozen.get("/readyz"), 503)
    answer = frozen.upload(picture())
    assert_refused(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert_fully_alive(frozen, old)
    assert server.get("/readyz").status_code == 200


def test_a_folder_that_vanishes_is_503_and_works_again_when_back(serve, folder):
    server = serve(**folder.settings)
    old = server.stored(sealed(1))
    away = folder.path.with_name("away")
    folder.path.rename(away)
    assert_refused(server.get("/readyz"), 503)
    assert_refused(server.upload(), 503)
    assert_refused(server.latest(), 503)
    assert server.get("/healthz").status_code == 200
    away.rename(folder.path)
    assert server.get("/readyz").status_code == 200
    assert_fully_alive(server, old)


class Gate:
    """A TCP port in front of another that can be shut."""

    def __init__(self, target):
        host, port = target.removeprefix("http://").split(":")
        self.target = (host, int(port))
        self.is_open = True
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self):
        self.is_open = False
        for one in self.pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.shut()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self.listener.accept()
                if not self.is_open:
                    caller.close()
                    continue
                other = socket.create_connection(self.target)
                self.pairs += [caller, other]
                for pair in ((caller, other), (other, caller)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()


@fact("S3-away")
def test_s3_that_is_away_is_503_and_works_again_when_back(serve, new_place):
    place = new_place("s3")
    with contextlib.closing(Gate(place.endpoint)) as gate:
        settings = place.settings | {"AWS_ENDPOINT_URL": gate.url}
        server = serve(**settings)
        old = server.stored(sealed(1))
        gate.shut()
        start = time.monotonic()
        answer = server.upload()
        assert_refused(answer, 503)
        assert "Retry-After" in answer.headers
        assert time.monotonic() - start < 30
        for path in (old, "/latest", "/latest/raw", "/readyz"):
            assert_refused(server.get(path, headers=AUTH), 503)
        assert server.get("/healthz").status_code == 200
        gate.is_open = True
        assert server.get("/readyz").status_code == 200
        assert_fully_alive(server, old)
        assert server.upload().status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [{"AWS_SECRET_ACCESS_KEY": "other"}, {"STORAGE_URL": "s3://no-such-bucket/x"}],
    ids=["key", "bucket"],
)
@fact("S3-misconfigured")
def test_a_wrong_key_or_bucket_is_not_ready_and_never_told(serve, new_place, wrong):
    server = serve(**new_place("s3").settings | wrong)
    assert_refused(server.get("/readyz"), 503)
    assert_refused(server.upload(PNG_MAGIC), 503)
    name = f"/i/{uuid.uuid4().hex}.png"
    assert server.get(name).status_code in (404, 503)
    assert server.get("/healthz").status_code == 200
