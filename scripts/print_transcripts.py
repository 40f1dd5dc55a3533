"""Print what apps and this server say to each other: the transcripts of docs/recipes.

    .venv/bin/python -m scripts.print_transcripts librechat vercel-ai-sdk litellm
    .venv/bin/python -m scripts.print_transcripts open-webui --write

The server is the real one with the embedded model. LiteLLM and Open WebUI are installed
into virtual environments under var/transcripts (Open WebUI takes 3 GB), the Vercel AI
SDK comes from tests/support/node; LibreChat's requests are sent as it writes them.
``--write`` puts the transcripts into the recipes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from scripts import open_webui_calls
from scripts.recording_proxy import RecordingProxy, readable
from tests.support import app_requests, node_client
from tests.support.pictures import make_png
from tests.support.raw_requests import exchange
from tests.support.servers import ROOT, free_port, run_api
from tests.support.wire import make_mask

KEY = "sk-of-the-recipes"
PACKAGES = {"litellm": "litellm==1.106.2", "open-webui": "open-webui==0.12.4"}
_BLOCK = re.compile(r"(?<=<!-- transcript -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main():
    """Print the transcripts that were asked for."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("apps", nargs="+", choices=sorted(RUNS), metavar="APP")
    options.add_argument("--write", action="store_true", help="into docs/recipes")
    asked = options.parse_args()
    with run_api(FLUX_API_KEYS=f"recipes:{KEY}") as server:
        server.wait_ready()
        for app in asked.apps:
            text = transcript(server, RUNS[app])
            print(text)
            if asked.write:
                path = ROOT / f"docs/recipes/{app}.md"
                path.write_text(_BLOCK.sub(lambda _, t=text: t, path.read_text()))


def transcript(server, run):
    """Everything that ``run`` said to ``server`` and heard, and what it printed."""
    target = urlsplit(server.url)
    with RecordingProxy((target.hostname, target.port)) as proxy:
        address = f"127.0.0.1:{proxy.port}"
        said = run(address)
        blocks = [
            f"```http\n{readable(asked, address)}```\n\n"
            f"```http\n{readable(answered, address)}```\n"
            for asked, answered in proxy.exchanges
        ]
    if said:
        blocks.append(f"What the app made of it:\n\n```\n{said.strip()}\n```\n")
    return "\n".join(blocks)


def run_librechat(address):
    """LibreChat's requests as it writes them."""
    host, port = address.split(":")
    for asked in app_requests.LIBRECHAT:
        raw = asked.raw(address, KEY, make_png(), make_mask((96, 64), (0, 0, 40, 64)))
        exchange((host, int(port)), raw)


def run_vercel(address):
    """The Vercel AI SDK itself."""
    node_client.install()
    command = ["node", "vercel.mjs", f"http://{address}/v1", KEY]
    said = run_with_pictures(command, node_client.FOLDER)
    return json.dumps(json.loads(said), indent=2)


def run_litellm(address):
    """LiteLLM itself."""
    python = environment("litellm") / "bin/python"
    script = str(ROOT / "scripts/litellm_calls.py")
    command = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", str(python), script]
    return run_with_pictures([*command, f"http://{address}/v1", KEY], ROOT)


def run_open_webui(address):
    """Open WebUI itself, over its own API."""
    program = environment("open-webui") / "bin/open-webui"
    calls = open_webui_calls.make_calls(
        str(program), free_port(), f"http://{address}/v1", KEY, make_png()
    )
    return "\n".join(calls)


RUNS = {
    "librechat": run_librechat,
    "litellm": run_litellm,
    "open-webui": run_open_webui,
    "vercel-ai-sdk": run_vercel,
}


def run_with_pictures(command, folder):
    """What ``command`` prints when it gets a picture and a mask as last arguments."""
    with tempfile.TemporaryDirectory() as pictures:
        image, mask = Path(pictures, "in.png"), Path(pictures, "mask.png")
        image.write_bytes(make_png())
        mask.write_bytes(make_mask((96, 64), (0, 0, 40, 64)))
        done = subprocess.run(
            [*command, str(image), str(mask)], cwd=folder, capture_output=True
        )
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        return done.stdout.decode()


def environment(app):
    """A virtual environment with ``app``. It sees the packages of this one, which
    saves a second copy of torch."""
    folder = ROOT / "var/transcripts" / app
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        [packages] = folder.glob("lib/python*/site-packages")
        if app == "open-webui":
            own = next(path for path in sys.path if path.endswith("site-packages"))
            (packages / "zz_torch.pth").write_text(own)
        pip = [folder / "bin/python", "-m", "pip", "install", PACKAGES[app]]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (folder / "installed").touch()
    return folder


if __name__ == "__main__":
    main()
