"""Documents in two languages say the same, and links and commands lead somewhere."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.servers import ROOT

PAIRS = [
    ("README.md", "README.ja.md"),
    ("docs/models.md", "docs/ja/models.md"),
    ("docs/jobs.md", "docs/ja/jobs.md"),
    ("docs/page.md", "docs/ja/page.md"),
    ("docs/performance.md", "docs/ja/performance.md"),
    ("docs/metrics.md", "docs/ja/metrics.md"),
    ("docs/command-line.md", "docs/ja/command-line.md"),
    ("docs/marking.md", "docs/ja/marking.md"),
    ("docs/operations.md", "docs/ja/operations.md"),
    ("docs/security.md", "docs/ja/security.md"),
    ("docs/README.md", "docs/ja/README.md"),
    ("docs/troubleshooting.md", "docs/ja/troubleshooting.md"),
    ("docs/deployment.md", "docs/ja/deployment.md"),
    ("docs/scaling.md", "docs/ja/scaling.md"),
    ("docs/apis.md", "docs/ja/apis.md"),
    ("docs/ray.md", "docs/ja/ray.md"),
    ("docs/openai-compatibility.md", "docs/ja/openai-compatibility.md"),
]
# For contributors.
ENGLISH_ONLY = {"docs/architecture.md"}
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
# What the Japanese of this field says otherwise, and what it should say.
NOT_SAID = {
    "埋め込みモデル": "同梱モデル",
    "届く": "アクセスできる",
    "行列": "キュー",
    "見守": "監視",
    "私的": "プライベート",
    "トランスフォーマー": "transformer",
    "画素": "ピクセル",
    "ディスクリプタ": "ファイル記述子",
    "名前:鍵": "名前:キー",
}
# Spelt with the long vowel.
LONG = re.compile(
    "(サーバ|ヘッダ|ユーザ|フォルダ|ブラウザ|パラメータ|ワーカ|エンコーダ|デコーダ|フィルタ"
    "|プロバイダ|ドライバ|エディタ|マネージャ|クラスタ|トークナイザ|カウンタ|パーサ|ポインタ"
    "|コンパイラ|コントローラ|オーケストレータ)(?!ー)"
)
IN_JAPANESE = [
    *(japanese for _, japanese in PAIRS),
    "flux_api/page/words/ja.js",
    "flux_api/page/docs/ja.js",
]


def text(name):
    return (ROOT / name).read_text("utf-8")


def blocks(name):
    """The fenced blocks, without what is said beside the code, nor in prompts."""
    shown = re.sub(r"""(?<=prompt=)([^"'\n]*|"[^"\n]*")(?=["',)])""", "", text(name))
    shown = re.sub(r'(?<="prompt": )"[^"\n]*"', "", shown)
    found = re.findall(r"^```(\w*)\n(.*?)^```", shown, re.M | re.S)
    return [
        (language, [_without_words(line) for line in body.splitlines()])
        for language, body in found
    ]


def _without_words(line):
    """A line without its comment, and without what our own command is to draw."""
    line = re.sub(r"\s*#.*", "", line).strip()
    if re.search(r"flux.api (generate|edit) ", line):
        line = re.sub(r'"[^"]*"', '""', line)
    return line


@pytest.mark.parametrize(("english", "japanese"), PAIRS)
def test_both_languages_have_the_same_headings_tables_and_commands(english, japanese):
    def shape(name):
        kept = (line for line in text(name).splitlines())
        marks = (re.match(r"#+ |\| ?(?:`[^`]+`)?|```", line) for line in kept)
        return [mark[0] for mark in marks if mark]

    assert shape(japanese) == shape(english)
    assert blocks(japanese) == blocks(english)


@pytest.mark.parametrize("page", ["docs/jobs.md", "docs/ja/jobs.md"])
def test_the_answer_that_is_shown_is_to_the_request_above_it(page):
    asked = re.search(
        r'"prompt=([^"]+)" -F "dry_run=1".+?"prompt": "([^"]+)"', text(page), re.S
    )
    assert asked and asked[1] == asked[2]


def test_every_page_is_there_in_both_languages_unless_it_is_said_to_be_english():
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    assert pages - ENGLISH_ONLY == {name for name, _ in PAIRS} - {"README.md"}


@pytest.mark.parametrize("name", [japanese for _, japanese in PAIRS])
def test_japanese_pages_say_which_links_are_english(name):
    for label, target, after in re.findall(
        r"\[([^\]]+)\]\(([^)#\s]+)[^)]*\)(（英語）)?", text(name)
    ):
        page = (ROOT / name).parent / target
        spoken = re.split(r"[./]", page.resolve().relative_to(ROOT).as_posix())
        english = target.endswith(".md") and "ja" not in spoken
        recipes = page.is_dir()
        if (english or recipes) and label != "English":
            assert after, f"{label}: {target}"
        else:
            assert not after or target.endswith("NOTICE"), f"{label}: {target}"


@pytest.mark.parametrize("name", IN_JAPANESE)
def test_japanese_pages_use_the_words_of_the_field(name):
    for word, better in NOT_SAID.items():
        assert word not in text(name), f"{better} instead of {word}"
    assert not LONG.findall(text(name))


@pytest.mark.parametrize("name", [japanese for _, japanese in PAIRS])
def test_japanese_prose_writes_id_in_capitals(name):
    prose = re.sub(
        r"^```.*?^```|`[^`\n]*`|\([^)\s]*\)", "", text(name), flags=re.M | re.S
    )
    assert not re.findall(
        r".*[ぁ-んァ-ヶ一-龠、。] ?id ?[ぁ-んァ-ヶ一-龠、。].*", prose
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(name)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        if anchor and page.suffix == ".md":
            headings = re.findall(r"^#+ (.*)", page.read_text("utf-8"), re.M)
            slugs = [
                re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings
            ]
            assert anchor in slugs, target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_run_as_printed_from_a_fresh_clone(name):
    """No bare ``python`` or ``pip``: what was installed is in .venv. ``flux-api`` is
    there where pip installed it, or under the alias that the page sets."""
    bare = r"(?:python3?(?! -m venv)|pip|gunicorn|pytest) "
    if "alias flux-api=" not in text(name):
        bare += "|flux-api "
    for language, lines in blocks(name):
        for line in lines if language in ("bash", "") else ():
            command = re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", line)
            assert not re.match(bare, command), line
    assert not re.findall(r"`python3? -m (?!flux_api)[^`]*`", text(name))
    for module in re.findall(
        r"python -m (flux_api|benchmarks\.\w+|tests\.\w+)", text(name)
    ):
        found = ROOT / module.replace(".", "/")
        assert found.with_suffix(".py").exists() or found.is_dir(), module


@pytest.mark.parametrize("index", ["docs/README.md", "docs/ja/README.md"])
def test_every_document_can_be_reached_from_the_index(index):
    folder, found, waiting = (ROOT / index).parent, set(), [ROOT / index]
    while waiting:
        page = waiting.pop()
        if page not in found and page.suffix == ".md" and page.exists():
            found.add(page)
            links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
            waiting += [(page.parent / link).resolve() for link in links]
    assert set(folder.glob("*.md")) <= found


def test_shell_blocks_are_shell():
    for name in DOCUMENTS:
        for language, lines in blocks(name):
            if language == "bash":
                script = "\n".join(lines)
                subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.parametrize("name", ["docs/operations.md", "docs/ja/operations.md"])
def test_every_alert_says_what_to_do(name):
    rules = text("deploy/prometheus/alerts.yml")
    told = re.findall(r"^\| `(Flux\w+)` \|", text(name), re.M)
    assert told == re.findall(r"alert: (\w+)", rules)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_table_of_cards_is_what_the_planner_says(language):
    from scripts.plan_table import PAGES, table

    shown = PAGES[language].read_text("utf-8").partition("<!-- plans -->\n")[2]
    assert shown.partition("\n<!-- end -->")[0] == table(language), (
        "run python -m scripts.plan_table"
    )
