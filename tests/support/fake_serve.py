"""``flux-api serve`` over instances of fake_app.py: ``python -m
tests.support.fake_serve`` takes the same arguments."""

from __future__ import annotations

from flux_api.__main__ import main
from flux_api.commands import serve

if __name__ == "__main__":
    serve.API = "tests.support.fake_app:app"
    main()
