"""Every text of the page is there in both languages, and every one is used."""

from __future__ import annotations

import json
import re
import subprocess

from flux_api.blueprints.page import PAGE
from tests.support.programs import need

DESCRIBE = """
const shape = (word) =>
  typeof word === "function" ? `function of ${word.length}`
  : Array.isArray(word) ? `${word.length} texts`
  : typeof word === "object" ? Object.fromEntries(
      Object.entries(word).map(([name, one]) => [name, shape(one)]))
  : "text";
const load = (name) => import(`./words/${name}.js`);
const [en, ja] = await Promise.all(["en", "ja"].map(load));
console.log(JSON.stringify([shape(en.default), shape(ja.default), ja.default]));
"""
# Made of a mode or of a state at run time.
MADE = re.compile(
    r"(ask|does)[A-Z]|(loading|failed|draining)(Title|Text)|(stopped|lost)Text"
)


def words():
    """The shapes of both languages, and the Japanese texts."""
    command = [need("node"), "--input-type=module", "-e", DESCRIBE]
    done = subprocess.run(command, cwd=PAGE, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_both_languages_have_the_same_texts():
    english, japanese, _ = words()
    assert english == japanese


def test_japanese_is_japanese():
    _, _, texts = words()
    same = {"loras", "between", "gap"}
    for name, text in texts.items():
        if isinstance(text, str) and name not in same:
            assert re.search(r"[\u3041-\u30ff\u4e00-\u9fff]", text), name


def test_every_text_is_used_and_every_used_one_is_there():
    english, _, _ = words()
    code = "".join(path.read_text("utf-8") for path in PAGE.glob("*.js"))
    used = set(re.findall(r"""\bt\("(\w+)["]""", code))
    assert used <= set(english)
    for name in english:
        assert re.search(rf'"{name}"', code) or MADE.match(name), name


def test_a_real_model_is_not_offered_without_what_it_needs():
    english, japanese = (
        (PAGE / f"words/{language}.js").read_text("utf-8") for language in ("en", "ja")
    )
    for text in (english, japanese):
        [demo] = re.findall(r'demo: "(.+)"', text)
        assert "GPU" in demo and "16 GB" in demo
