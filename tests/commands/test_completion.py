"""What the shell completes, beside what tests/commands/test_terminal.py types."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete

from flux_api.commands.completion import VARIABLE
from flux_api.commands.program import program


def completed(command, incomplete, environ):
    """The names and their help."""
    shell = BashComplete(program, {"obj": environ}, "flux-api", VARIABLE)
    items = shell.get_completions(command, incomplete)
    return {item.value: item.help for item in items}


@pytest.mark.parametrize("command", [["generate", "--model"], ["fetch"]], ids=str)
def test_sets_are_completed_with_what_they_are(tmp_path, command):
    models = tmp_path / "models.toml"
    models.write_text('[klein-mine]\nlike = "klein-4b"\ndescription = "My own"\n')
    found = completed(command, "klein-", {"MODEL_INFO": str(models)})
    assert found["klein-mine"] == "My own" and "klein-4b" in found
    assert "tiny" not in found


def test_those_that_come_with_it_are_completed_whatever_is_wrong_with_settings():
    for environ in ({"FLUX_MAX_QUEUE": "many"}, {"MODEL_INFO": "/no/such/file"}):
        assert "klein-4b" in completed(["generate", "--model"], "klein-4", environ)
