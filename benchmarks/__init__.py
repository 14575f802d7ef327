"""Side-by-side measurements. Each module prints a table, or JSON."""

from asyncdiff_cli import render

render.quiet_imports()
