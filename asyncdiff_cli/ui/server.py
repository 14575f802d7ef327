"""The server of the page, on this machine alone unless asked otherwise."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.errors import InputError

if TYPE_CHECKING:
    from asyncdiff_cli.ui.page import Page

CSS = Path(__file__).with_name("page.css")
FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""What the browser has: none is fetched."""


def check_gradio() -> None:
    """What the page is made with is installed.

    Raises:
        InputError: if not.
    """
    if find_spec("gradio") is None:
        raise InputError("ui needs gradio: pip install 'asyncdiff-cli[ui]'")


def check_address(host: str, port: int) -> None:
    """A server can listen here.

    Raises:
        InputError: if another one does, or this machine has no such address.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; give"
            " another --host or --port"
        ) from None


@contextmanager
def serve(page: Page, host: str, port: int) -> Iterator[str]:
    """Serve the page within the block.

    Nothing of it is shared, counted or kept: no tunnel, no telemetry, no history, no uploads.

    Yields:
        Its address.
    """
    import gradio as gr
    import matplotlib

    matplotlib.use("agg")  # gradio asks which one it is, and it would look for screens and fonts
    font, font_mono = FONTS
    options: dict[str, Any] = {
        "css_paths": CSS,
        "theme": gr.themes.Base(font=font, font_mono=font_mono),
        "footer_links": [],
        "max_file_size": 1,
    }
    options |= dict.fromkeys(
        ("share", "run_history", "enable_monitoring", "ssr_mode", "pwa", "mcp_server"), False
    )
    _, url, _ = page.blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **options
    )
    try:
        yield url
    finally:
        page.blocks.close(verbose=False)


def wait() -> None:
    """Wait for a signal that ends the process."""
    threading.Event().wait()
