"""What the tools are called with, beside pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flux_api.http.fields import Fields
from flux_api.http.parameters import JOB_ID, Count, Parameters
from flux_api.http.values import Boolean, Word

Form = Literal["image", "link"]


class Arguments(Fields):
    """Arguments of a tool; alone, of one that takes none."""

    @classmethod
    def _note_on(cls, name: str, known: list[str]) -> str | None:
        # An agent has been told every argument that there is.
        missing = f"{name!a} was ignored: there is no such argument."
        return super()._note_on(name, known) or missing


class ToolParameters(Arguments, Parameters):
    """What the tools take that make pictures."""

    n: Count = 1
    """How many pictures."""
    result: Annotated[Form, Word] = "image"
    """Whether pictures come as content or as links."""
    wait: Annotated[bool, Boolean] = True
    """Whether to wait for the pictures; else job_status has them later."""

    @property
    def num_images(self) -> int:
        """How many pictures to make."""
        return self.n


class JobParameters(Arguments):
    """Which job."""

    job_id: Annotated[str, Field(pattern=f"^{JOB_ID.pattern}$")] = ""
    """The job's id."""
    result: Annotated[Form, Word] = "image"
    """Whether its pictures come as content or as links."""
