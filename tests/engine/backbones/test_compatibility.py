"""What is known of models without importing their libraries is what these say."""

import pytest
from diffusers.models.attention_dispatch import AttentionBackendName

from asyncdiff_cli.engine import REGISTRY, load_backbone
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.compatibility import attention_backends, check_known_size
from asyncdiff_cli.engine.errors import InputError


def test_the_attention_backends_are_those_of_diffusers():
    assert attention_backends() == tuple(backend.value for backend in AttentionBackendName)


def test_the_sizes_of_mini_are_those_of_its_model():
    entry, adapter = REGISTRY["mini"], load_backbone("mini", device="cpu").adapter
    assert (entry.size_multiple, entry.largest_size) == (
        adapter.size_multiple,
        adapter.largest_size,
    )


@pytest.mark.parametrize("name", REGISTRY)
def test_a_backbone_draws_its_own_size(name):
    entry = REGISTRY[name]
    for size in (entry.size or entry.largest_size, entry.size_multiple):
        check_known_size(ModelChoice(backbone=name), size, size)
    with pytest.raises(InputError, match="a multiple of"):
        check_known_size(ModelChoice(backbone=name), 1001, 1008)


def test_of_another_model_under_that_name_no_size_is_known(tmp_path):
    check_known_size(ModelChoice(backbone="mini", model_path=tmp_path), 1001, 1001)
