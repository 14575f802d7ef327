"""What pictures are turned into, and what their weights are read from."""

import numpy as np
import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.set_metrics import check_set_metrics
from asyncdiff_cli.engine.evaluation.set_metrics.cmmd import CMMD
from asyncdiff_cli.engine.evaluation.set_metrics.fid import FID
from asyncdiff_cli.engine.pictures import square

TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 1},
}


def picture(width, height, seed=0):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def test_the_square_is_cut_before_it_is_resized():
    wide = picture(40, 20)
    expected = wide.crop((10, 0, 30, 20)).resize((8, 8), Image.Resampling.BICUBIC)
    assert square(wide, 8).tobytes() == expected.tobytes()
    assert square(wide, 20).tobytes() == wide.crop((10, 0, 30, 20)).tobytes()


def test_embeddings_are_of_unit_length_and_of_each_picture_alone():
    torch.manual_seed(0)
    metric = CMMD(TINY)
    pictures = [picture(30, 30, seed) for seed in range(3)]
    together = metric.features(pictures)
    assert together.shape == (3, 8)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    alone = torch.cat([metric.features([one]) for one in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_image_tower_is_read_from_weights_as_open_clip_has_them(tmp_path, monkeypatch):
    import open_clip

    monkeypatch.setattr(CMMD, "config", TINY)
    torch.manual_seed(0)
    whole = open_clip.CLIP(**TINY, quick_gelu=True)
    torch.save(whole.state_dict(), tmp_path / "clip.pt")
    metric = CMMD.load(tmp_path / "clip.pt")
    image = picture(28, 28)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    expected = whole.eval().encode_image((pixels - mean) / std, normalize=True)
    torch.testing.assert_close(metric.features([image]), expected, atol=1e-5, rtol=1e-5)
    torch.save(open_clip.CLIP(**{**TINY, "embed_dim": 4}).state_dict(), tmp_path / "other.pt")
    with pytest.raises(AsyncDiffError, match="not the weights of cmmd"):
        CMMD.load(tmp_path / "other.pt")


def test_fid_reads_torch_fidelitys_features(tmp_path, monkeypatch):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(AsyncDiffError, match="not the Inception network of FID"):
        FID.load(tmp_path / "other.pth")
    network = module.FeatureExtractorInceptionV3
    monkeypatch.setattr(network, "load_state_dict", lambda self, state: None)
    metric = FID.load(tmp_path / "other.pth")
    assert metric.features([picture(16, 16)]).shape == (1, 2048)


def test_a_pickle_that_could_run_code_is_not_read(tmp_path):
    torch.save({"weight": print}, tmp_path / "pickle.pth")
    with pytest.raises(AsyncDiffError, match="would run code"):
        FID.load(tmp_path / "pickle.pth")


def test_names_are_checked_before_anything_is_loaded(monkeypatch):
    with pytest.raises(InputError, match="did you mean 'spectrum'"):
        check_set_metrics(["spectra"])
    with pytest.raises(InputError, match="names cmmd twice"):
        check_set_metrics(["cmmd", "cmmd"])
    monkeypatch.setattr("asyncdiff_cli.engine.evaluation.set_metrics.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'asyncdiff-cli\[fid\]'"):
        check_set_metrics(["spectrum", "fid"])
