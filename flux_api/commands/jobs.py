"""``jobs``: what a server has of one's requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from flux_api.commands.api import Api, Json
from flux_api.commands.connecting import server_options
from flux_api.commands.files import PictureFiles, write
from flux_api.commands.transport import Failure, Remote
from flux_server.log_lines import json_line

_HEAD = ("ID", "STATE", "MODE", "MODEL", "SIZE", "STEPS", "AGE", "WHY")


def _asked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Names of jobs, and whom to ask about them."""
    return click.argument("ids", nargs=-1, required=True, metavar="ID...")(
        server_options(command)
    )


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each job.")
@server_options
@click.pass_context
def jobs(
    context: click.Context, as_json: bool, server: str | None, key: str | None
) -> None:
    """List your jobs on a server, newest first, with why one failed; stop them, fetch
    their pictures.

    A server keeps a job and its pictures for ten minutes after its end.

    \b
    flux-api jobs --server http://localhost:8000
    flux-api jobs cancel my-job-0001
    flux-api jobs save my-job-0001 -o heart.png
    """
    if context.invoked_subcommand:
        return
    found = _api(server, key).jobs()
    if as_json:
        for job in found:
            click.echo(json_line(job))
        return
    rows = [_HEAD, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@jobs.command()
@_asked
def cancel(ids: tuple[str, ...], server: str | None, key: str | None) -> int:
    """Stop jobs before their next step."""
    api, code = _api(server, key), 0
    for job_id in ids:
        try:
            click.echo(f"{job_id}  {api.cancel(job_id)['state']}")
        except Failure as failure:
            code = max(code, _tell(job_id, failure))
    return code


@jobs.command()
@_asked
@click.option("-o", "--out", metavar="FILE", help="A file, a folder, or - .")
def save(
    ids: tuple[str, ...], out: str | None, server: str | None, key: str | None
) -> int:
    """Fetch the pictures of jobs that are done."""
    api, code = _api(server, key), 0
    # All of them first: names get numbers by how many there are.
    pictures = {}
    for job_id in ids:
        try:
            pictures[job_id] = _pictures(api, job_id)
        except Failure as failure:
            code = max(code, _tell(job_id, failure))
    files = PictureFiles(out, sum(map(len, pictures.values())))
    for job_id, found in pictures.items():
        for data, facts in found:
            [path] = files.names(job_id, 1, facts["format"])
            write(path, data)
            if out != "-":
                click.echo(path)
    return code


def _tell(job_id: str, failure: Failure) -> int:
    """Say why there is nothing of a job; the exit code."""
    click.echo(f"flux-api: {job_id}: {failure}", err=True)
    return failure.exit_code


def _api(server: str | None, key: str | None) -> Api:
    if not server:
        raise click.UsageError("jobs are a server's: say --server URL or FLUX_SERVER")
    api = Api(Remote(server, key))
    # Whatever else listens there is told apart here.
    api.capabilities()
    return api


def _pictures(api: Api, job_id: str) -> list[tuple[bytes, Json]]:
    count = api.job(job_id).get("images", 1)
    return [api.result(job_id, index) for index in range(count)]


def _row(job: Json) -> tuple[str, ...]:
    size = f"{job['width']}x{job['height']}" if "width" in job else "-"
    steps = f"{job['step']}/{job['steps']}" if "step" in job else "-"
    age = f"{max(0, time.time() - job['created_at']):.0f} s"
    mode, model = job.get("mode", "-"), job.get("model", "-")
    # Who cancelled knows why.
    why = job["error"]["message"] if job["state"] == "failed" else ""
    return (job["id"], job["state"], mode, model, size, steps, age, why)
