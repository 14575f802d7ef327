"""The screenshot in docs/draw.md: `python -m tests.helpers.screenshot docs/ui.webp` makes it."""

import io
import sys
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from asyncdiff_cli import render
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.drawing.request import parse_request
from asyncdiff_cli.engine.launching import free_port
from asyncdiff_cli.ui.page import Page
from asyncdiff_cli.ui.server import serve
from asyncdiff_cli.ui.studio import Studio
from tests.helpers.browser import start_browser

PROMPT, POLICY = "a rocket under a starry sky", "schedule:0.3/0.8/1/0.6"
WINDOW = {"width": 1280, "height": 834}


def main(path):
    """Write a picture of the page as it opens, with a point that is chosen."""
    render.quiet_libraries()
    request = parse_request(prompts=(PROMPT,), policy=POLICY, steps=5)
    page = Page(Studio.open(request, ModelChoice(device="cpu"), Path("outputs")), request)
    with serve(page, "127.0.0.1", free_port()) as url, contextmanager(start_browser)() as browser:
        tab = browser.new_page(viewport=WINDOW)
        tab.goto(url)
        tab.locator(".pictures img").first.wait_for(timeout=300_000)
        tab.locator(".handle").nth(1).focus()
        shown = Image.open(io.BytesIO(tab.screenshot(animations="disabled")))
    shown.convert("RGB").save(path, quality=80, method=6)


if __name__ == "__main__":
    main(sys.argv[1])
