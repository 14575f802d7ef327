"""Weights that `mini` had in earlier versions, by the fingerprints that pictures keep of them."""

from __future__ import annotations

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.errors import InputError

GONE = {
    "060136288bd0eefa": "5f17771",
    "76a8994cfea1d757": "6d943e5",
    "423ea31203210628": "27bc0c3",
    "d8d70796ba5d497d": "4487360",
    "8a6358c6218a7906": "e943fe5",
}
"""Commits of this project that hold what these fingerprints, 16 digits of them, are of."""


def check_edition(where: object, fingerprint: str | None, choice: ModelChoice) -> None:
    """The weights that a picture of mini was drawn with are those that are to draw it again.

    Args:
        where: the picture.
        fingerprint: of the files that it was drawn with.
        choice: the model that is to draw.

    Raises:
        InputError: for weights that this version lacks, with the commit that has them.
    """
    commit = GONE.get((fingerprint or "")[:16])
    if commit is not None and choice.name == "mini" and choice.model_path is None:
        raise InputError(
            f"{where} was drawn with weights of mini that this version no longer has; commit"
            f" {commit} of asyncdiff has them: give --model-path with the asyncdiff_cli/assets/mini"
            " of its checkout"
        )
