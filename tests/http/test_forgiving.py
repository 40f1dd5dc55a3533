"""What people really send: read where it is safe, refused with what to do elsewhere."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
import requests
from PIL import Image

from flux_api.models.catalog import MODEL_INFO
from flux_api.models.known_words import (
    known_words,
    knows,
    knows_order,
    two_things,
)
from tests.support.pictures import make_png, save
from tests.support.servers import ROOT, run_api
from tests.support.wire import EDITS, data_url, make_mask, message_of, post, seen

GENERATIONS = "/v1/images/generations"
PROMPT = {"prompt": "a cat", "steps": 1}


def grey(size, kind="PNG"):
    """A mask without alpha: the left half white."""
    image = Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    return save(image, kind)


@pytest.mark.parametrize("name", ["image", "images", "image[]", "input_file"])
@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_picture_is_an_edit_by_every_name(fake, png, path, name):
    answer = post(fake, path, data=PROMPT, files={name: ("a.png", png)})
    assert answer.status_code == 200, answer.text
    assert seen(fake)["mode"] == "edit"
    assert seen(fake)["images"] == [[96, 64]]


@pytest.mark.parametrize(
    "name",
    [
        *("image_url", "image_urls", "image_base64", "init_images", "reference_image"),
        *("imageUrl", "ref_images", "image_data", "input_references"),
    ],
)
@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_picture_as_text_is_one_by_every_name_too(fake, png, path, name):
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    for key in (name, name.title()):
        answer = post(fake, path, json=PROMPT | {key: url})
        assert answer.status_code == 200, answer.text
        assert seen(fake)["mode"] == "edit"
        assert seen(fake)["images"] == [[96, 64]]


@pytest.mark.parametrize("path", [GENERATIONS, "/process", "/v1/flux-dev"])
def test_a_picture_of_no_known_name_is_not_lost(fake, png, path):
    """It would be drawn as if none had come."""
    for value in (data_url(png), [{"image_url": {"url": data_url(png)}}]):
        answer = post(fake, path, json=PROMPT | {"control_image": value})
        assert answer.status_code in (400, 422)
        assert "A file is not expected as 'control_image'" in answer.text
    told = post(fake, path, json=PROMPT | {"control_image": "https://a.test/x.png"})
    assert told.status_code in (200, 202)


def test_an_empty_file_is_told(fake):
    answer = post(fake, EDITS, data=PROMPT, files={"image": ("a.png", b"")})
    assert answer.status_code == 400
    assert message_of(answer) == "image is an empty file"


def test_a_prompt_that_came_as_a_file_is_told(fake):
    answer = post(fake, GENERATIONS, files={"prompt": ("p.txt", b"a cat")})
    assert answer.status_code == 400
    assert "A file is not expected as 'prompt'" in message_of(answer)


def test_the_original_api_takes_masks_and_sizes(fake, png):
    files = {"image": png, "mask": make_mask((96, 64), (0, 0, 9, 9))}
    assert post(fake, "/process", data=PROMPT, files=files).status_code == 200
    assert seen(fake)["mask"] == [0, 255]
    assert post(fake, "/process", data=PROMPT | {"size": "128x64"}).status_code == 200
    assert seen(fake)["size"] == [128, 64]


@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_width_and_height_and_size_agree_or_are_refused(fake, path):
    both = PROMPT | {"width": 128, "height": 64}
    assert post(fake, path, json=both).status_code == 200
    assert seen(fake)["size"] == [128, 64]
    assert post(fake, path, json=both | {"size": "128x64"}).status_code == 200
    answer = post(fake, path, json=both | {"size": "64x64"})
    assert answer.status_code == 400
    assert "'width'" in message_of(answer)


@pytest.mark.parametrize(
    "values",
    [{"n": 2}, {"stream": True}, {"response_format": "url"}],
    ids=str,
)
def test_the_original_api_names_the_route_for_what_it_cannot(fake, values):
    for path in ("/process", "/process/raw"):
        answer = post(fake, path, json=PROMPT | values)
        assert answer.status_code == 400
        assert "/v1/images/generations" in message_of(answer)
    harmless = PROMPT | {"n": 1, "stream": False, "output_format": "png"}
    assert post(fake, "/process", json=harmless).status_code == 200


@pytest.mark.parametrize("path", [GENERATIONS, EDITS, "/process"])
def test_a_file_under_another_name_is_refused(fake, png, path):
    answer = post(fake, path, data=PROMPT, files={"photo": ("a.png", png)})
    assert answer.status_code == 400
    assert "'photo'" in message_of(answer)
    assert "'image'" in message_of(answer)


def test_a_set_that_is_not_offered_is_404(fake):
    for path in (GENERATIONS, "/process"):
        answer = post(fake, path, json=PROMPT | {"model": "klein-4b"})
        assert answer.status_code == 404
        assert "FLUX_MODELS" in message_of(answer)
    assert post(fake, GENERATIONS, json=PROMPT | {"model": "any"}).status_code == 200


def test_a_set_of_ones_own_that_is_left_out_is_404_too(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text('[mine]\nlike = "tiny"\n')
    settings = {"MODEL_INFO": file, "FLUX_MODELS": "tiny"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        answer = post(server, GENERATIONS, json=PROMPT | {"model": "mine"})
        assert answer.status_code == 404
        assert "FLUX_MODELS" in message_of(answer)


def test_a_models_other_names_are_answered(fake):
    found = requests.get(f"{fake.url}/v1/models/gpt-image-1", timeout=10).json()
    assert (found["id"], found["root"]) == ("gpt-image-1", "tiny")


@pytest.mark.parametrize("header", [None, "application/x-www-form-urlencoded"])
def test_json_without_its_header_is_read(fake, header):
    headers = {"Content-Type": header} if header else {}
    body = json.dumps(PROMPT | {"size": "128x64"}).encode()
    answer = requests.post(fake.url + GENERATIONS, body, headers=headers, timeout=20)
    assert answer.status_code == 200
    assert seen(fake)["size"] == [128, 64]


def test_other_bodies_are_told_the_header(fake):
    answer = requests.post(fake.url + GENERATIONS, b"a cat", timeout=20)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in message_of(answer)


@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_parameter_in_the_address_is_told_where_it_belongs(fake, path):
    answer = post(fake, f"{path}?prompt=a+dog&size=64x64&api-version=1", json=PROMPT)
    assert answer.status_code == 200
    assert "'prompt' in the address was ignored" in answer.json()["warning"]
    assert "api-version" not in answer.json()["warning"]
    missing = post(fake, f"{path}?prompt=a+dog", json={})
    assert missing.status_code == 400
    assert "send it in the body" in message_of(missing)


def test_json_in_quotes_is_told(fake):
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    # So it comes from Windows' command line, which knows no single quotes.
    answer = requests.post(f"{fake.url}/process", b"'{prompt:", headers=kind, timeout=9)
    assert answer.status_code == 400
    assert "JSON in quotes" in message_of(answer)


@pytest.mark.parametrize("name", ["heart.png", "/tmp/my photo.JPG", "@heart.webp"])
def test_the_name_of_a_file_is_no_file(fake, name):
    for path in (EDITS, "/process"):
        form = PROMPT | {"image": name}
        answer = post(fake, path, files={k: (None, str(v)) for k, v in form.items()})
        assert answer.status_code == 400
        assert "-F image=@FILE" in message_of(answer)


def test_a_slip_in_json_is_told_by_its_place(fake):
    kind = {"Content-Type": "application/json"}
    body = b'{"prompt": "a cat",\n "steps": 1,}'
    answer = requests.post(fake.url + GENERATIONS, body, headers=kind, timeout=20)
    assert answer.status_code == 400
    assert "line 2, column" in message_of(answer)


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_jp"])
@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_json_that_is_no_utf_8_is_told_so(fake, path, encoding):
    body = json.dumps({"prompt": "\u8d64\u3044\u732b"}, ensure_ascii=False)
    answer = post(fake, path, data=body.encode(encoding))
    assert answer.status_code == 400
    assert "its text is not UTF-8" in message_of(answer)


@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_size_may_have_the_sign_of_multiplication(fake, path):
    for size in ("128\u00d764", "128X64"):
        answer = post(fake, path, json=PROMPT | {"size": size})
        assert answer.status_code == 200, answer.text
        assert seen(fake)["size"] == [128, 64]


def test_a_packed_body_is_read_and_bounded(fake):
    kind = {"Content-Type": "application/json"}
    url, body = fake.url + GENERATIONS, json.dumps(PROMPT).encode()

    def send(data, encoding):
        headers = kind | {"Content-Encoding": encoding}
        return requests.post(url, data, headers=headers, timeout=20)

    assert send(gzip.compress(body), "gzip").status_code == 200
    assert send(gzip.compress(body)[:-9], "gzip").status_code == 400
    assert send(body, "gzip").status_code == 400
    assert send(gzip.compress(bytes(100 * 2**20)), "gzip").status_code == 413
    answer = send(body, "br")
    assert answer.status_code == 415
    assert "'br'" in message_of(answer)


def test_a_picture_without_a_file_name_is_a_file(fake, png):
    head = b'--X\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = head % (b"image", png) + head % (b"prompt", b"BMW, a red one") + b"--X--"
    kind = {"Content-Type": "multipart/form-data; boundary=X"}
    answer = requests.post(fake.url + EDITS, body, headers=kind, timeout=20)
    assert answer.status_code == 200, answer.text
    assert seen(fake)["prompt"] == "BMW, a red one"


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_jp", "gb18030", "latin-1"])
@pytest.mark.parametrize("path", ["/process", EDITS])
def test_the_name_of_a_file_may_be_in_any_encoding(fake, png, path, encoding):
    # In Shift_JIS the last of these ends in the byte of a backslash.
    name = "\xe9t\xe9.png" if encoding == "latin-1" else "\u732b\u8868.png"
    field = "image" if path == EDITS else "input_file"
    head = f'; name="{field}"; filename="{name}"'.encode(encoding)
    answer = send_form(fake, path, head, png)
    assert answer.status_code == 200, answer.text
    assert seen(fake)["images"] == [[96, 64]]


def test_the_name_of_a_field_has_to_be_utf_8(fake, png):
    answer = send_form(fake, "/process", b'; name="\x89\xe6"; filename="a"', png)
    assert answer.status_code == 400
    assert "The name of a field in the form is not UTF-8." in message_of(answer)


def send_form(fake, path, head, picture):
    """Post a prompt, and a picture whose head is written by hand."""
    start = b"--cut\r\nContent-Disposition: form-data"
    body = start + b'; name="prompt"\r\n\r\na cat\r\n'
    body += start + head + b"\r\n\r\n" + picture + b"\r\n--cut--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    return post(fake, path, data=body, headers=headers)


def test_a_file_that_was_not_chosen_is_none(fake):
    """A browser sends the field all the same, without a name and without bytes."""
    head = b'--X\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=X"}

    def send(file):
        body = head % (b"image", b'; filename="%s"' % file, b"")
        body += head % (b"prompt", b"", b"a cat") + b"--X--"
        return requests.post(fake.url + GENERATIONS, body, headers=kind, timeout=20)

    assert send(b"").status_code == 200
    assert seen(fake)["mode"] == "generate"
    # A file that is empty was meant.
    answer = send(b"a.png")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


def test_text_beside_a_file_is_ignored_and_said(fake, png):
    files = [("image", ("a.png", png)), ("image", (None, "[object File]"))]
    answer = post(fake, EDITS, data=PROMPT, files=files)
    assert answer.status_code == 200, answer.text
    assert "'image'" in answer.json()["warning"]


@pytest.mark.parametrize(
    "picture",
    [
        list(range(40)),
        {"type": "Buffer", "data": [1, 2]},
        {"0": 137, "1": 80},
        ["137"] * 30,
        [137],
        list(range(256)) * 600,
    ],
    ids=["list", "buffer", "array", "form", "one", "long"],
)
def test_numbers_of_a_picture_are_explained(fake, picture):
    answer = post(fake, EDITS, json=PROMPT | {"image": picture})
    assert answer.status_code == 400
    assert "numbers" in message_of(answer)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=X", "application/x-www-form-urlencoded"]
)
def test_form_text_that_is_no_utf_8_is_400(fake, kind):
    body = b"prompt=%E9t%E9"
    if "X" in kind:
        body = b'--X\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xe9\r\n'
        body += b"--X--"
    headers = {"Content-Type": kind}
    answer = requests.post(f"{fake.url}/process", body, headers=headers, timeout=20)
    assert answer.status_code == 400
    assert "UTF-8" in message_of(answer)


@pytest.mark.parametrize("name", ["mask", "mask_image"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_mask_without_alpha_is_black_and_white(fake, png, kind, name):
    files = {"image": ("a.png", png), name: ("m", grey((96, 64), kind))}
    answer = post(fake, EDITS, data=PROMPT, files=files)
    assert answer.status_code == 200, answer.text
    assert seen(fake)["mask"] == [0, 255]
    assert "opaque" in answer.json()["warning"]


def test_a_mask_of_another_size_is_scaled_where_the_shape_is_the_same(fake, png):
    files = {"image": png, "mask": make_mask((48, 32), (0, 0, 9, 9))}
    answer = post(fake, EDITS, data=PROMPT, files=files)
    assert answer.status_code == 200, answer.text
    assert "48x32 to 96x64" in answer.json()["warning"]
    files["mask"] = make_mask((64, 64), (0, 0, 9, 9))
    assert post(fake, EDITS, data=PROMPT, files=files).status_code == 400
    raw = post(
        fake, "/process/raw", data=PROMPT, files={**files, "mask": grey((48, 32))}
    )
    assert "48x32 to 96x64" in raw.headers["X-Flux-Warning"]


def test_a_mask_that_leaves_nothing_to_repaint_is_told(fake, png):
    files = {"image": png, "mask": make_mask((96, 64), (200, 200, 200, 200))}
    answer = post(fake, EDITS, data=PROMPT, files=files)
    assert answer.status_code == 200, answer.text
    assert "The mask leaves nothing to repaint." in answer.json()["warning"]


@pytest.mark.parametrize(
    ("guidance", "told"), [({}, False), ({"guidance_scale": 1}, True)]
)
def test_a_negative_prompt_that_is_not_read_is_told(fake, guidance, told):
    values = PROMPT | guidance
    plain = post(fake, GENERATIONS, json=values).json()
    assert "warning" not in plain
    answer = post(fake, GENERATIONS, json=values | {"negative_prompt": "a dog"}).json()
    unread = "negative_prompt plays no part: guidance_scale is 1, not above 1."
    assert (answer.get("warning") == unread) is told


def test_a_mask_alone_or_in_a_variation_is_refused(fake, png):
    mask = data_url(make_mask((96, 64), (0, 0, 9, 9)))
    assert post(fake, GENERATIONS, json=PROMPT | {"mask": mask}).status_code == 400
    values = {"image": data_url(make_png()), "mask": mask}
    answer = post(fake, "/v1/images/variations", json=values)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "mask"


@pytest.mark.parametrize(
    "path", ["/v1/models/", "/v1//models", "//v1/models", "/health/"]
)
def test_slashes_too_many_change_nothing(fake, path):
    answer = requests.get(fake.url + path, timeout=10, allow_redirects=False)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", [f"{GENERATIONS}/", "/v1//images/generations", "//process", "/process/raw/"]
)
def test_slashes_too_many_change_nothing_of_a_post(fake, path):
    answer = post(fake, path, json=PROMPT, allow_redirects=False)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("sent", ["json", "data"])
def test_seeds_of_openais_api_are_those_of_the_field(fake, sent):
    body = PROMPT | {"size": "64x64", "n": 2}
    for seed, used in ((0, 0), (2**64 - 2, 2**64 - 2), (-1, None), (-(2**63), None)):
        answer = post(fake, GENERATIONS, **{sent: body | {"seed": seed}})
        first, second = (item["seed"] for item in answer.json()["data"])
        assert second == first + 1
        assert second < 2**32 if used is None else first == used


@pytest.mark.parametrize(
    "size", [{"size": "1920x1080"}, {"width": 1920, "height": 1080}], ids=str
)
@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_size_off_the_grid_names_the_nearest(fake, path, size):
    answer = post(fake, path, json=PROMPT | size)
    assert answer.status_code == 400
    assert "try 1920x1088" in message_of(answer)


@pytest.mark.parametrize(
    "head",
    [
        *("image/png;name=a.png;base64", 'x/y;filename="a b.png";base64'),
        *("binary/octet-stream;base64", ";base64", "image/png; BASE64 "),
        *('x/y;name="a,b.png";base64', "x/y;name=a,b.png;base64"),
        *(f"x/y;name={'a' * 3000}.png;base64", "image/png;base64;charset=utf-8"),
        *('image/png;base64;name="a,b;c.png"',),
    ],
    ids=lambda head: head[:40],
)
@pytest.mark.parametrize("path", [EDITS, "/process"])
def test_data_urls_are_judged_by_their_bytes(fake, png, path, head):
    url = data_url(png).replace("image/png;base64", head, 1)
    answer = post(fake, path, json=PROMPT | {"image": url})
    assert answer.status_code == 200, answer.text
    assert seen(fake)["images"] == [[96, 64]]


@pytest.mark.parametrize(
    "url",
    ["data:image/png,%89PNG", "data:;base64" + " " * 9000 + ",AA", "data:;base64x,AA"],
)
def test_data_urls_without_base64_are_told_the_form(fake, url):
    answer = post(fake, EDITS, json=PROMPT | {"image": url})
    assert answer.status_code == 400
    assert "data:image/png;base64,..." in message_of(answer)


@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_form_without_its_boundary_is_told_who_sets_it(fake, path):
    kind = {"Content-Type": "multipart/form-data"}
    body = b'--X\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n--X--'
    answer = requests.post(fake.url + path, body, headers=kind, timeout=20)
    assert answer.status_code == 400
    assert "has no boundary: let the client set that header" in message_of(answer)


@pytest.mark.parametrize("header", [None, "application/json", "text/plain"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_with_a_byte_order_mark_is_read(fake, header, encoding):
    headers = {"Content-Type": header} if header else {}
    body = json.dumps(PROMPT | {"size": "128x64"}).encode(encoding)
    answer = requests.post(fake.url + GENERATIONS, body, headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    assert seen(fake)["size"] == [128, 64]


@pytest.mark.parametrize(
    "header", [None, "application/json", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_json_list_is_told_that_an_object_is_expected(fake, path, header):
    headers = {"Content-Type": header} if header else {}
    body = json.dumps([PROMPT]).encode()
    answer = requests.post(fake.url + path, body, headers=headers, timeout=20)
    assert answer.status_code == 400
    assert "must be a JSON object" in message_of(answer)


def test_the_first_address_says_where_to_go_on(fake):
    body = requests.get(fake.url, timeout=10).json()
    assert body["models"][0] == "tiny"
    assert body["ready"] is True
    for route in body["routes"]:
        method, _, path = route.rpartition(" ")
        answer = requests.options(fake.url + path.replace("<id>", "x"), timeout=10)
        assert not method or method in answer.headers["Allow"]


@pytest.mark.parametrize("prompt", ["a red heart", "make it monochrome", "A CAT!"])
def test_a_prompt_with_a_known_word_carries_no_warning(fake, prompt):
    form = {"prompt": prompt, "width": 64, "height": 64}
    answer = requests.post(f"{fake.url}/process", data=form, timeout=20)
    assert "warning" not in answer.json()
    assert "X-Flux-Warning" not in answer.headers


def test_a_prompt_without_a_known_word_carries_a_warning(fake):
    prompt = "quantum entanglement"
    form = {"prompt": prompt, "width": 64, "height": 64}
    warning = (
        "The model 'tiny' knows no word of this prompt; GET /v1/models/tiny lists what "
        "it draws."
    )
    answer = requests.post(f"{fake.url}/process", data=form, timeout=20)
    assert answer.json()["warning"] == warning
    raw = requests.post(f"{fake.url}/process/raw", data=form, timeout=20)
    assert raw.headers["X-Flux-Warning"] == warning
    values = {"prompt": prompt, "size": "64x64"}
    url = f"{fake.url}/v1/images/generations"
    assert requests.post(url, json=values, timeout=20).json()["warning"] == warning
    listed = requests.get(f"{fake.url}/v1/models/tiny", timeout=10).json()
    assert "cat face" in listed["known_words"]["en"]["things"]


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat and a dog",
        "cats & dogs",
        "a bear riding a bicycle",
        "a dog next to a red heart",
        "猫と犬",
        "かわいい猫と赤い車",
        "帽子をかぶった犬",
    ],
)
def test_two_things_in_a_prompt_are_one_too_many_for_tiny(fake, prompt):
    form = {"prompt": prompt, "width": 64, "height": 64, "steps": 1}
    answer = requests.post(f"{fake.url}/process", data=form, timeout=20).json()
    assert "draws one thing at a time, and this prompt names two" in answer["warning"]


@pytest.mark.parametrize(
    "order",
    ["make him smile", "add a hat", "zoom out", "make it look like winter"]
    + ["帽子をかぶせて", "笑わせて", "大きくして", "水彩画にして"],
)
def test_an_order_that_tiny_does_not_know_carries_a_warning(fake, png, order):
    form = {"prompt": order, "steps": "1"}
    files = {"image": ("a.png", png)}
    raw = post(fake, "/process/raw", data=form, files=files)
    told = raw.headers["X-Flux-Warning"]
    assert "does not know this order" in told or "knows no word" in told


def test_what_tiny_can_is_taken_without_a_warning():
    """Its own examples, every single thing that it draws, every order it was taught."""
    source = MODEL_INFO["tiny"].base_model
    said = known_words(source)
    for example in (*said["en"]["examples"], *said["ja"]["examples"]):
        assert knows(source, example) and not two_things(source, example), example
    for language, scenes in SCENES.items():
        for thing in said[language]["things"]:
            for scene in scenes:
                assert not two_things(source, scene.format(thing)), (scene, thing)
    for order in taught_orders():
        assert knows_order(source, order), order


SCENES = {
    "en": ("{}", "a cute {} illustration", "{} in 3d style", "a {} on a blue backdrop"),
    "ja": ("{}", "{}の絵", "かわいい{}のイラスト", "3d風の{}", "{}、白い背景"),
}
WORDS = ROOT / "training" / "words" / "japanese_wordings.json"


def taught_orders():
    """The wordings of the training, with a colour, a style and a thing put in."""
    english = json.loads((ROOT / "training" / "wordings.json").read_text())
    japanese = json.loads(WORDS.read_text())
    filled = {"t": "it", "c": "blue", "s": "flat", "n": "dog"}
    for group in english.values():
        yield from (text.format(**filled) for texts in group.values() for text in texts)
    filled = {"t": "これを", "s": "フラット", "n": "犬", "noun": "青"}
    filled |= {"adjective": "青い", "adverb": "青く"}
    for group in (japanese["orders"], japanese["short"]):
        yield from (text.format(**filled) for texts in group.values() for text in texts)


@pytest.mark.parametrize("name", ["prompｔ", "prompt\n", "stepsé"])
def test_warnings_fit_into_headers(fake, name):
    asked = PROMPT | {name: "x", "model": "tinｙy"}
    answer = post(fake, "/process/raw", json=asked)
    assert answer.status_code == 200, answer.text
    assert "was ignored" in answer.headers["X-Flux-Warning"]
    assert "so 'tiny' was taken" in answer.headers["X-Flux-Warning"]


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "127.0.0.1:9", "[::1]", "169.254.169.254"]
)
def test_a_private_address_that_is_written_out_is_told(fake, host):
    form = {"input_image_url": f"http://{host}/x.png"}
    answer = requests.post(f"{fake.url}/process", data=form, timeout=20)
    assert answer.status_code == 400
    literal = host.partition(":9")[0].strip("[]")
    assert f"{literal} is not a public address" in answer.json()["error"]


def test_web_pages_may_read_every_header_of_a_picture():
    with run_api(app="tests.support.fake_app:app", FLUX_CORS_ORIGINS="*") as server:
        server.wait_ready()
        answer = requests.post(
            f"{server.url}/process/raw",
            data={"prompt": "quantum entanglement", "width": 64, "height": 64},
            headers={"Origin": "https://page.example"},
            timeout=20,
        )
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    ours = [name for name in answer.headers if name.startswith("X-Flux-")]
    assert len(ours) >= 8
    assert set(ours) <= set(exposed)


@pytest.mark.parametrize("path", [GENERATIONS, "/process"])
def test_a_misspelt_name_is_told(fake, path):
    form = PROMPT | {"guidence_scale": 3, "nobody_means_this": 1}
    answer = post(fake, path, json=form)
    assert answer.status_code == 200
    warning = answer.json()["warning"]
    assert "'guidence_scale' was ignored; did you mean 'guidance_scale'?" in warning
    # Apps send OpenAI's API what others take; this one is called by its own names.
    assert ("'nobody_means_this' was ignored: there is" in warning) == (
        path == "/process"
    )
    capital = post(fake, path, json=PROMPT | {"SEED": 3}).json()["warning"]
    assert "'SEED' was ignored; did you mean 'seed'?" in capital
    missing = post(fake, path, json={"promt": "a dog"})
    assert missing.status_code == 400
    assert "did you mean 'prompt'?" in message_of(missing)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("image_size", "size"), ("num_outputs", "n"), ("format", "output_format")),
        *(
            ("denoising_strength", "strength"),
            ("checkpoint", "model"),
            ("sead", "seed"),
        ),
    ],
)
def test_what_other_apis_call_a_parameter_is_told(fake, name, meant):
    answer = post(fake, GENERATIONS, json=PROMPT | {name: "4"})
    told = f"'{name}' was ignored; did you mean '{meant}'?"
    assert told in answer.json()["warning"]
    # Where there is no such parameter either, nothing is meant.
    told = post(fake, "/process", json=PROMPT | {"count": 1}).json()
    assert told["warning"] == "'count' was ignored: there is no such field."


def test_a_mode_is_no_field_and_what_decides_it_is_told(fake):
    told = post(fake, "/process", json=PROMPT | {"mode": "edit"}).json()
    assert (told["mode"], told["warning"][:18]) == ("generate", "'mode' was ignored")


@pytest.mark.parametrize("path", ["/process", "/process/raw"])
def test_many_misspelt_names_make_no_endless_header(fake, path):
    form = PROMPT | {f"prompt{n}": 1 for n in range(900)}
    answer = post(fake, path, json=form)
    assert answer.status_code == 200
    told = answer.headers.get("X-Flux-Warning") or answer.json()["warning"]
    assert 1 <= told.count("did you mean") <= 20


def test_one_side_follows_the_shape_of_the_picture(fake):
    for asked, size in (({"width": 384}, [384, 256]), ({"height": 256}, [384, 256])):
        files = {"image": ("a.png", save(Image.new("RGB", (768, 512))))}
        answer = post(fake, "/process", data=PROMPT | asked, files=files)
        assert answer.status_code == 200
        assert seen(fake)["size"] == size


def test_the_size_that_is_suggested_keeps_what_was_left_open(fake):
    answer = post(fake, "/process", data=PROMPT | {"width": 100})
    assert "try 96x512" in message_of(answer)


def test_the_key_is_taken_from_the_headers_that_clients_use():
    key = "the-key-of-app"
    with run_api(app="tests.support.fake_app:app", FLUX_API_KEYS=f"a:{key}") as server:
        server.wait_ready()
        headers = (
            {"X-API-Key": key},
            {"api-key": key},
            {"Authorization": f"Bearer {key}"},
        )
        for given in headers:
            url = f"{server.url}/v1/models"
            assert requests.get(url, headers=given, timeout=9).status_code == 200


@pytest.mark.parametrize("word", ["jpg", "JPG", "jpeg", " JPEG "])
def test_jpg_is_jpeg_everywhere(fake, png, word):
    asked = PROMPT | {"output_format": word}
    answer = post(fake, "/process/raw", data=asked)
    assert answer.headers["Content-Type"] == "image/jpeg", answer.text
    for path, files in ((GENERATIONS, None), (EDITS, {"image": ("a.png", png)})):
        answer = post(fake, path, data=asked, files=files)
        assert answer.status_code == 200, answer.text
        assert answer.json()["output_format"] == "jpeg"
    form = {"output_format": word}
    answer = post(
        fake, "/v1/images/variations", data=form, files={"image": ("a.png", png)}
    )
    assert answer.status_code == 200, answer.text


def test_who_is_lost_is_told_where_to_go_on(fake):
    for path in ("/generate", "/v1", "/v1/image/generations"):
        answer = requests.get(fake.url + path, timeout=10)
        assert answer.status_code == 404
        assert "GET / lists what there is" in message_of(answer)
        assert "file server" not in message_of(answer)
    for path in ("/latest", "/upload", "/i/x.png"):
        answer = requests.get(fake.url + path, timeout=10)
        assert "Stored pictures are the file server's" in message_of(answer)
    for path, takes in (("/process", "POST"), (GENERATIONS, "POST"), ("/jobs", "GET")):
        method = "GET" if takes == "POST" else "PUT"
        answer = requests.request(method, fake.url + path, timeout=10)
        assert answer.status_code == 405
        assert message_of(answer).endswith(f"does not take that method but {takes}.")
