"""A recipe beside a stored picture: for who has the token, gone with the picture."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
import requests

from tests.file_server.serving import AUTH, PNG_MAGIC
from tests.support.servers import run_files

RECIPE = '{"recipe": 1, "prompt": "猫"}'


def upload(server, recipe):
    return requests.post(
        f"{server.url}/upload",
        files={"file": PNG_MAGIC},
        data={"recipe": recipe},
        timeout=30,
    )


def test_it_comes_back_to_who_has_the_token(server):
    path = upload(server, RECIPE).json()["url"]
    by_id = path.partition(".")[0]
    for place in (f"{path}/recipe", f"{by_id}/recipe"):
        answer = server.get(place, headers=AUTH)
        assert answer.status_code == 200
        assert answer.content.decode() == RECIPE
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert server.get(place).status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert server.get(place, headers=wrong).status_code == 403
    # It is no picture that anybody could have.
    assert server.get(f"{by_id}.json").status_code == 404
    assert server.latest_path() == path


def test_no_other_user_of_the_machine_reads_a_prompt(tmp_path):
    folder = tmp_path / "images"
    with run_files(folder) as server:
        name = upload(server, RECIPE).json()["url"].rpartition("/")[2]
    recipe = folder / f"{name.partition('.')[0]}.json"
    assert recipe.read_text() == RECIPE
    assert recipe.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["0" * 32, f"{'0' * 32}.png", "latest", "x.json"])
def test_where_there_is_none_it_is_404(server, name):
    assert server.get(f"/i/{name}/recipe", headers=AUTH).status_code == 404
    plain = server.stored(PNG_MAGIC)
    assert server.get(f"{plain}/recipe", headers=AUTH).status_code == 404


@pytest.mark.parametrize("recipe", ["no json", "[1]", "[" * 100_000, '{"a": NaN}'])
def test_what_is_no_object_is_400_and_stores_nothing(server, recipe):
    before = server.stored(PNG_MAGIC)
    answer = upload(server, recipe)
    assert answer.status_code == 400
    assert "'recipe'" in answer.json()["error"]
    assert server.latest_path() == before


@pytest.mark.parametrize(("size", "status"), [(500_000, 200), (500_001, 413)])
def test_the_longest_that_there_may_be(server, size, status):
    answer = upload(server, '{"a": "' + "x" * (size - 9) + '"}')
    assert answer.status_code == status


def test_it_counts_and_goes_with_its_picture(kind, new_place):
    place = new_place(kind)
    storage = place.storage()
    old = storage.save(io.BytesIO(PNG_MAGIC), "png", RECIPE.encode())
    new = storage.save(io.BytesIO(PNG_MAGIC), "png", RECIPE.encode())
    usage = storage.usage()
    assert usage.files == 2
    assert usage.bytes == 2 * len(PNG_MAGIC + RECIPE.encode())
    hour = timedelta(hours=1)
    assert storage.remove_expired(datetime.now(UTC) - hour) == 0
    assert storage.remove_expired(datetime.now(UTC) + hour) == 1
    kept = new.partition(".")[0]
    assert place.names() == {new, f"{kept}.json", "latest.json"}
    assert old.partition(".")[0] != kept


def test_a_quota_counts_it(kind, new_place):
    from file_server.errors import StorageFull

    place = new_place(kind)
    storage = place.storage(max_total=len(PNG_MAGIC) + 10)
    with pytest.raises(StorageFull):
        storage.save(io.BytesIO(PNG_MAGIC), "png", RECIPE.encode())
    assert place.names() == set()


def test_the_description_names_it(server):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    told = document["paths"]["/i/{fid}/recipe"]["get"]
    assert told["security"] == [{"bearer": []}]
