"""A browser for tests of pages; without one, or without playwright, they are skipped."""

import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser():
    """A browser that starts; Ubuntu's `chromium-browser` may only say that it is elsewhere."""
    for path in filter(None, map(shutil.which, BROWSERS)):
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def start_browser():
    """The body of a fixture: a browser of playwright until the tests with it are over."""
    path = find_browser()
    if path is None:
        pytest.skip(f"there is none of {', '.join(BROWSERS)} here")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"]  # which root cannot have
        found = playwright.chromium.launch(executable_path=path, args=arguments)
        yield found
        found.close()


def becomes(page, expression, wanted=True):
    """Whether something has a value a little later: a page takes a moment to do what it does."""
    for _ in range(400):
        if page.evaluate(expression) == wanted:
            return True
        page.wait_for_timeout(50)
    return False
