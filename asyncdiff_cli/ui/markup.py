"""What the page shows of pictures and messages, as HTML."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from asyncdiff_cli.engine.drawing.plan import WAYS
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.text import visible
from asyncdiff_cli.ui.studio import AMPLIFIED, Pair


def title(about: str) -> str:
    """The head of the page."""
    return _part("title", about)


def pictures(pair: Pair, scores: Mapping[str, tuple[float, float] | str]) -> str:
    """Both pictures beside their difference, and their scores."""
    return _part("pictures", pair, scores)


def estimates(pair: Pair, rows: Sequence[Sequence[Image.Image]]) -> str:
    """What each evaluation takes the picture to be, a row for each of the two pictures."""
    return _part("estimates", rows, pair.asynchronous.sigmas[:-1].tolist())


def lines(kind: str, *texts: str) -> str:
    """Messages of a kind, one line each: "error", "warning" or "note"."""
    return _part("lines", kind, [visible(" ".join(text.split())) for text in texts])


def _part(name: str, *of: Any) -> str:
    """What a macro of the template makes of its arguments."""
    return str(getattr(_parts(), name)(*of)).strip()


@cache
def _parts() -> Any:
    environment = Environment(
        loader=PackageLoader("asyncdiff_cli", "ui"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"uri": _uri, "plain": plain, "mean": _mean, "signed": _signed}
    environment.globals |= {"names": WAYS, "amplified": AMPLIFIED}
    return environment.get_template("parts.html.j2").module


def _uri(image: Image.Image) -> str:
    """A PNG as a part of the page, so that nothing is written for it."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _signed(form: str, value: float) -> str:
    """A number with a minus sign that is as wide as a plus."""
    return (form % value).replace("-", "−")
