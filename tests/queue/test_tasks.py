"""What is logged of a failure, and the pace."""

from __future__ import annotations

import traceback

import pytest

from flux_api.errors import Cancelled
from flux_api.queue.jobs import Job
from flux_api.queue.tasks import PictureTask, WorkPace, log_failure
from tests.queue.small_requests import request


def task_of(prompt, negative_prompt=None):
    """A picture of it."""
    it = request(prompt=prompt, negative_prompt=negative_prompt)
    return PictureTask(Job(it, id="the-job", caller="A"), 0, it, tokens=1)


@pytest.fixture
def logged(caplog):
    """Logs a failure and says with what text."""

    def log(fail, *prompts):
        caplog.clear()
        try:
            fail()
        except BaseException as error:
            log_failure(error, task_of(*prompts))
        return caplog.messages[-1]

    return log


def failing(error):
    """What raises ``error``."""

    def fail_x():
        raise error

    return fail_x


def frames_of(text):
    """Its lines that name a file."""
    return [line for line in text.splitlines() if line.startswith('  File "')]


@pytest.mark.parametrize(
    "prompt",
    [
        *("x", "e", " ", ":", "File", "Error", "AttributeError", "tasks"),
        *("time.monotonic()", ", in check", "Traceback (most recent call last)"),
    ],
)
def test_frames_and_names_stay_readable_whatever_the_prompt(logged, prompt):
    def fail_x():
        PictureTask.check(None)  # a frame in flux_api

    text = logged(fail_x, prompt)
    files = frames_of(text)
    assert len(files) == 3
    assert files[-1].endswith(", in check")
    assert "/flux_api/queue/tasks.py" in files[-1]
    assert "    self.beat = time.monotonic()" in text
    assert "\nAttributeError: " in text
    assert text.startswith("job the-job failed: Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    "prompt",
    [
        "a very private cat",
        "cat",
        "\u732b",
        "two\nlines and a\ttab",
        "\u732b \x1b[31m",
        'it\'s "quoted" \\ and (a+b)*',
        "half \ud800",
        'File "/a.py", line 3',
    ],
)
@pytest.mark.parametrize(
    "error_of",
    [
        lambda prompt: ValueError(f"bad: {prompt}: too long"),
        lambda prompt: ValueError(f"{prompt}={prompt}"),
        lambda prompt: KeyError(prompt),
        lambda prompt: RuntimeError("many", {"prompt": prompt}),
        lambda prompt: RuntimeError(ascii(prompt)),
    ],
)
def test_no_prompt_is_in_the_message(logged, prompt, error_of):
    error = error_of(prompt)
    text = logged(failing(error), prompt)
    for form in (prompt, repr(prompt)[1:-1], ascii(prompt)[1:-1]):
        assert form not in text
    assert "<prompt>" in text
    assert type(error).__name__ in text


@pytest.mark.parametrize("prompt", ["two words", "\u732b", "(cat)"])
def test_more_than_a_word_is_found_within_words_too(logged, prompt):
    text = logged(failing(ValueError(f"of{prompt}{prompt}s")), prompt)
    assert text.endswith("ValueError: of<prompt><prompt>s\n")


def test_both_prompts_go_also_where_one_is_a_part_of_the_other(logged):
    prompts = ("no cat", "no cat on the mat")
    text = logged(failing(ValueError(f"bad: {prompts}")), *prompts)
    assert text.endswith("ValueError: bad: ('<prompt>', '<prompt>')\n")


def test_what_stands_in_for_a_prompt_is_not_searched_again(logged):
    text = logged(failing(ValueError("a private cat; p")), "a private cat", "p")
    assert text.endswith("ValueError: <prompt>; <prompt>\n")


def test_causes_contexts_and_notes_have_no_prompt_either(logged):
    def fail():
        try:
            try:
                raise KeyError("hidden one")
            except KeyError:
                raise ValueError("about hidden one") from None
        except ValueError as error:
            error.add_note("noted: hidden one")
            try:
                raise TypeError("of hidden one") from error
            except TypeError:
                raise Cancelled("for hidden one")  # noqa: B904

    text = logged(fail, "hidden one")
    for expected in (
        "ValueError: about <prompt>\nnoted: <prompt>\n",
        "\nwhich led to\n",
        "TypeError: of <prompt>\n",
        "flux_api.errors.Cancelled: for <prompt>\n",
    ):
        assert expected in text
    # Suppressed by "from None".
    assert "\nKeyError" not in text
    assert text.index("ValueError: ") < text.index("TypeError: ")


@pytest.mark.parametrize("prompt", ["", "cat"])
def test_a_message_without_the_prompt_is_as_python_writes_it(logged, prompt):
    error = RuntimeError("CUDA out of memory.\nTried to allocate cats; concat")
    text = logged(failing(error), prompt)
    assert text.endswith("".join(traceback.format_exception_only(error)))
    assert "\n    raise error\n" in text


def test_an_exception_without_words_or_that_has_none_is_logged(logged):
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    assert logged(failing(ValueError()), "x").endswith("\nValueError\n")
    assert "Mute" in logged(failing(Mute()), "x")


def test_a_chain_that_bites_its_tail_ends(logged):
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert logged(failing(first), "x").count("ValueError: ") == 2


def test_the_pace_is_an_average_that_follows():
    pace = WorkPace()
    assert pace.seconds_of(10, at_once=1) == 0
    pace.learn(0, 5.0)  # nothing was done: it says nothing
    assert pace.seconds_of(10, at_once=1) == 0
    pace.learn(10, 20.0)
    assert pace.seconds_of(10, at_once=1) == 20
    assert pace.seconds_of(10, at_once=4) == 5
    assert pace.seconds_of(10, at_once=0) == 20
    pace.learn(10, 30.0)
    assert pace.seconds_of(10, at_once=1) == pytest.approx(22)
