"""The page of the forms of files, and the tables of the tests that draw with them."""

from __future__ import annotations

import re

from tests.loading import test_checkpoint_forms, test_lora_schemes
from tests.support.servers import ROOT


def test_the_page_names_every_form_and_no_other():
    page = (ROOT / "tests" / "FORMS.md").read_text()
    loras, checkpoints = page.split("\n## Checkpoints")
    named = [re.findall(r"^\| `(\S+)` \|", part, re.M) for part in (loras, checkpoints)]
    assert named[0] == list(dict.fromkeys(form for *_, form in test_lora_schemes.CASES))
    assert set(named[1]) == set(test_checkpoint_forms.FORMS)
