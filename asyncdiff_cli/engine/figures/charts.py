"""Figures as inline SVG, several of which stand on one page."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, NamedTuple

from asyncdiff_cli.engine.figures.style import figure_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Chart(NamedTuple):
    """A figure of the page."""

    svg: str
    caption: str


def inline_chart(figure: Figure, name: str, caption: str) -> Chart:
    """A figure whose ids begin with a name, for several on a page would share them."""
    svg = figure_svg(figure)
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r'<path (?=id="[^"]*" transform)', '<path d="" ', svg)  # of a space
    # the rule of an inline SVG's style holds for the whole page unless it names the element
    svg = svg.replace('<style type="text/css">*{', f"<style>#{name} *{{")
    head = f'<svg id="{name}" role="img" aria-label="{html.escape(caption)}"'
    return Chart(svg.replace("<svg", head, 1), caption)
