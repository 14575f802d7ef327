"""Python in a process of its own."""

import os
import subprocess
import sys


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        errors="replace",  # of another encoding
        env={**os.environ, **environment},
        timeout=120,
    )
