"""The server of the page, on this machine alone unless asked otherwise."""

from __future__ import annotations

import ipaddress
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
        family, address = _found(host, port)
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; give"
            " another --host or --port"
        ) from None


def exposure(host: str, port: int) -> str | None:
    """What to say of an address at which others than this machine's users can come; else None.

    Raises:
        OSError: if there is no such address.
    """
    _, address = _found(host, port)
    if ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        return None
    return (
        f"at {host} the page is open to all who reach this machine, without a password: they see"
        " and save pictures, upload files, and have any file loaded by its path"
    )


def _found(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return family, address


@contextmanager
def serve(page: Page, host: str, port: int) -> Iterator[str]:
    """Serve the page within the block.

    Nothing of it is shared, counted or kept: no tunnel, no telemetry, no history, and no uploads
    but those of `upload.js`.

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
