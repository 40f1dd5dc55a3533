"""Content credentials over HTTP: every answer's picture is signed, its pixels are what
they were, and what it was made from is named."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import random
import sys
import termios
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from PIL import Image

from flux_api.images.metadata import picture_data
from flux_api.images.recipe import read_recipe
from tests.support.credentials import (
    actions,
    active,
    check_data_hash,
    make_certificates,
    read,
    write,
)
from tests.support.pictures import make_png, save
from tests.support.servers import TOKEN, free_port, run_api, wait_for
from tests.support.trap_server import trap
from tests.support.wire import data_url, make_mask, post

FORMATS = ("png", "jpeg", "webp")
FAKE = "tests.support.fake_app:app"
SMALL = {"prompt": "a cat", "size": "64x96", "steps": 2, "seed": 7}
GOOD = ("Valid", "Trusted")
SYNTHETIC = "trainedAlgorithmicMedia"
COMPOSITE = "compositeWithTrainedAlgorithmicMedia"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Settings of a server that signs, and the path of its authority."""
    return make_certificates(tmp_path_factory.mktemp("c2pa"))


@pytest.fixture(scope="module")
def signed(certificates, files):
    """A server that signs, takes several pictures and stores what it makes."""
    own = {"FILE_SERVER": files.url, "FAKE_MAX_IMAGES": 16}
    with run_api(app=FAKE, **own, **certificates[0]) as server:
        server.authority = certificates[1]
        yield server.wait_ready()


def draw(server, files=(), **fields):
    """The answer with one picture as a file."""
    return post(
        server,
        "/process/raw",
        data=SMALL | fields,
        files=[("input_file", ("any", data)) for data in files] or None,
    )


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, image.size, image.tobytes()


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_signature_is_good_and_tells_of_any_changed_byte(
    signed, file_format, tmp_path
):
    made = draw(signed, output_format=file_format).content
    start, end = check_data_hash(made)
    outside = [*range(start), *range(end, len(made))]
    inside = [made.index(word) for word in (b"c2pa.created", b"Iptc4xmpExt:Digital")]
    changed = [*inside, *random.Random(7).sample(outside, 30), outside[0], outside[-1]]
    path = write(tmp_path, f"made.{file_format}", made)
    told = read(path, signed.authority, changed)
    assert told["validation_state"] == "Trusted"
    assert actions(active(told)) == [("c2pa.created", SYNTHETIC, 0)]
    assert not set(told["changed"].values()) & set(GOOD), told["changed"]
    assert len(told["changed"]) == len(set(changed))
    other = bytearray(made)
    other[changed[1]] ^= 1
    with pytest.raises(AssertionError, match="another hash"):
        check_data_hash(bytes(other))


@pytest.mark.parametrize("file_format", FORMATS)
def test_pixels_and_facts_are_those_without_a_signature(signed, fake, file_format):
    plain, made, again = (
        draw(server, output_format=file_format) for server in (fake, signed, signed)
    )
    assert len(plain.content) < len(made.content) < len(plain.content) + 4096
    for one in (made, again):
        assert pixels(one.content) == pixels(plain.content)
        assert picture_data(one.content) == picture_data(plain.content)
        assert read_recipe(one.content) == read_recipe(plain.content)
    facts = [
        {k: v for k, v in one.headers.items() if is_fact(k)} for one in (plain, made)
    ]
    assert facts[0] == facts[1] != {}
    # Each signature has a number of its own.
    assert made.content != again.content


def is_fact(header):
    return header.startswith("X-Flux-") and not header.endswith("-Seconds")


def stored(server):
    """By the original API, from the file server."""
    url = post(server, "/process", data=SMALL).json()["result_image_url"]
    return requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=9)


def base64_of(server, **more):
    body = SMALL | {"response_format": "b64_json"} | more
    return base64.b64decode(post(server, json=body).json()["data"][0]["b64_json"])


def streamed(server):
    lines = post(server, json=SMALL | {"stream": True}).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return base64.b64decode(events[-1]["b64_json"])


def by_bfl(server):
    task = post(server, "/v1/flux-2-pro", json={"prompt": "a cat", "seed": 7}).json()
    told = {}

    def is_ready():
        told.update(requests.get(task["polling_url"], timeout=9).json())
        return told["status"] == "Ready"

    wait_for(is_ready, 20, server)
    return requests.get(told["result"]["sample"], timeout=9).content


def by_a1111(server):
    body = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2}
    answer = post(server, "/sdapi/v1/txt2img", json=body).json()
    return base64.b64decode(answer["images"][0])


def by_mcp(server):
    arguments = {"prompt": "a cat", "size": "64x64"}
    params = {"name": "generate_image", "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = post(server, "/mcp", json=message).json()["result"]
    return base64.b64decode(answer["content"][0]["data"])


DIALECTS = {
    "stored": lambda server: stored(server).content,
    "openai": base64_of,
    "openai stream": streamed,
    "bfl": by_bfl,
    "a1111": by_a1111,
    "mcp": by_mcp,
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_signed_pictures(signed, dialect):
    c2pa = pytest.importorskip("c2pa")
    made = DIALECTS[dialect](signed)
    check_data_hash(made)
    reader = c2pa.Reader(f"image/{kind(made)}", io.BytesIO(made))
    assert reader.get_validation_state() == "Valid"


def waits(pid):
    """Whether something is in the process's input that it has not read."""
    with open(f"/proc/{pid}/fd/0", "rb", buffering=0) as pipe:
        count = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder) > 0


def ask(server, how):
    """The answer to a request, or to the question for the picture of its job."""
    if how != "later":
        return post(server, json=SMALL | {"stream": how == "stream"})
    later = {"Prefer": "respond-async"}
    place = post(server, json=SMALL, headers=later).headers["Location"]
    answers = []

    def is_over():
        answers.append(requests.get(f"{server.url}{place}/result", timeout=9))
        return answers[-1].status_code != 409

    wait_for(is_over, 20, server)
    return answers[-1]


@pytest.mark.parametrize("how", ["plain", "stream", "later"])
def test_a_picture_is_not_given_out_unsigned(signed, how):
    """The process that signs is killed at its work."""
    draw(signed)
    family = psutil.Process(signed.process.pid).children(recursive=True)
    [child] = [p for p in family if "sign_child.py" in " ".join(p.cmdline())]
    child.suspend()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, signed, how)
        wait_for(lambda: waits(child.pid), 60, signed)
        child.kill()
        answer = asked.result(60)
    assert answer.status_code == (200 if how == "stream" else 500)
    assert '"code":"generation_failed"' in answer.text.replace(" ", "")
    assert "could not be signed" in answer.text and "b64_json" not in answer.text
    check_data_hash(draw(signed).content)


def kind(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.format.lower()


def test_a_picture_keeps_the_credentials_of_what_it_was_made_from(signed, tmp_path):
    first = draw(signed, output_format="webp").content
    second = draw(signed, [first], output_format="jpeg").content
    masked = {"mask": data_url(make_mask((64, 96), (0, 0, 32, 96)))}
    third = draw(signed, [second], **masked).content
    body = {"image": data_url(third), "scale": 2, "output_format": "webp"}
    fourth = post(signed, "/process/raw", json=body).content
    varied = post(
        signed,
        "/v1/images/variations",
        data={"size": "64x64", "response_format": "b64_json"},
        files={"image": ("a.png", third)},
    ).json()["data"][0]["b64_json"]
    before = "none"
    for number, (data, count) in enumerate(
        [(first, 1), (second, 2), (third, 3), (fourth, 4)]
    ):
        told = read(write(tmp_path, f"{number}.{kind(data)}", data), signed.authority)
        assert told["validation_state"] == "Trusted"
        assert len(told["manifests"]) == count
        check_data_hash(data)
        if count > 1:
            [parent] = active(told)["ingredients"]
            assert (parent["relationship"], parent["active_manifest"]) == (
                "parentOf",
                before,
            )
            opened = [("c2pa.opened", "", 1), ("c2pa.edited", COMPOSITE, 0)]
            assert actions(active(told)) == opened
        before = told["active_manifest"]
    path = write(tmp_path, "varied.png", base64.b64decode(varied))
    told = read(path, signed.authority)
    assert (told["validation_state"], len(told["manifests"])) == ("Trusted", 4)


def test_several_pictures_are_each_named_with_what_they_say(signed, tmp_path):
    credited = draw(signed, seed=1).content
    spoilt = draw(signed, seed=2, output_format="jpeg").content
    spoilt = spoilt.replace(b"flux:Recipe", b"flux:Reciqe")
    damaged = bytearray(draw(signed, seed=3, output_format="webp").content)
    damaged[damaged.index(b"c2pa.claim") + 3] ^= 0xFF
    sent = [make_png(), credited, spoilt, bytes(damaged)]
    answer = post(
        signed,
        "/v1/images/edits",
        data=SMALL,
        files=[("image[]", ("any", data)) for data in sent],
        headers={"Accept": "image/*"},
    )
    assert answer.ok, answer.text
    warning = answer.headers["X-Flux-Warning"]
    assert "input picture 4 are not kept: they are damaged." in warning
    assert "input picture 3" not in warning
    told = read(write(tmp_path, "made.png", answer.content), signed.authority)
    assert told["validation_state"] == "Trusted"
    found = {one["title"]: one for one in active(told)["ingredients"]}
    relations = [found[f"input picture {n}"]["relationship"] for n in (1, 2, 3, 4)]
    assert relations == ["parentOf", "inputTo", "inputTo", "inputTo"]
    assert ["active_manifest" in found[f"input picture {n}"] for n in (1, 2, 3, 4)] == [
        *(False, True, True, False)
    ]
    # What was changed after it was signed is kept, and so is that it was.
    results = found["input picture 3"]["validation_results"]["activeManifest"]
    codes = [one["code"] for one in results["failure"]]
    assert "assertion.dataHash.mismatch" in codes
    opened = [("c2pa.opened", "", 1), ("c2pa.edited", COMPOSITE, 3)]
    assert actions(active(told)) == opened


def test_credentials_that_lie_elsewhere_are_not_fetched(signed):
    with trap(lambda *_: None) as elsewhere:
        xmp = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
            'rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance='
            f'"{elsewhere.url("/a.c2pa")}"/></rdf:RDF></x:xmpmeta>'
        )
        made = draw(
            signed, [save(Image.new("RGB", (64, 64)), "JPEG", xmp=xmp.encode())]
        )
    assert made.ok, made.text
    check_data_hash(made.content)
    assert elsewhere.connections == 0


def test_every_api_tells_of_a_missing_time_stamp(certificates):
    own = {"FLUX_C2PA_TIMESTAMP_URL": f"http://127.0.0.1:{free_port()}"}
    body, note = {"prompt": "a cat"}, "The picture is signed without a time stamp: "
    with run_api(app=FAKE, **own, **certificates[0]) as server:
        server.wait_ready()
        assert note in draw(server).headers["X-Flux-Warning"]
        assert note in post(server, "/process", data=body).json()["warning"]
        plain = post(server, "/v1/images/generations", json=body)
        assert plain.json()["warning"].startswith(note)
        told = post(server, "/sdapi/v1/txt2img", json=body | {"cfg_scale": 7}).json()
        [*others, last] = json.loads(told["info"])["warnings"]
        assert last.startswith(note) and note not in " ".join(others)
        assert told["parameters"]["warnings"] == [*others, last]
