"""What is told of a backbone before it is loaded is what it then is."""

import pytest

from asyncdiff_cli.engine.backbones.backbone import load_outline
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.outline import Outline
from tests.conftest import TINY

SHARED = ("name", "entry", "revision", "fingerprint", "dtype", "scheduler", "grid", "size", "setup")


@pytest.mark.parametrize("family", [*TINY, "mini"])
def test_it_is_what_is_loaded(tmp_path, family):
    if family != "mini":
        TINY[family]().save_pretrained(tmp_path / family)
    name = str(tmp_path / family) if family in TINY else family
    for chosen in ({}, {"scheduler": "dpmpp", "grid": "beta", "attention": "native"}):
        choice = ModelChoice.parse(backbone=name, device="cpu", **chosen)
        outline, backbone = Outline.of(choice), load_outline(Outline.of(choice))
        assert [getattr(outline, own) for own in SHARED] == [
            getattr(backbone, own) for own in SHARED
        ]
        for limit in ("size_multiple", "largest_size"):
            assert getattr(outline.adapter, limit) == getattr(backbone.adapter, limit)
        in_force = outline.in_force().to_dict()
        assert in_force.keys() == set(ModelChoice.options())
        assert in_force["scheduler"] == backbone.scheduler
