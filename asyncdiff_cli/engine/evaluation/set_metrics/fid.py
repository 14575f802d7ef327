"""FID: the Fréchet distance of Inception features (Heusel et al., 2017), through torch-fidelity."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.downloads import file_sha256
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.evaluation.set_metrics.frechet import FrechetMetric
from asyncdiff_cli.engine.rewards.checkpoints import read_state_dict
from asyncdiff_cli.engine.text import one_line


class FID(FrechetMetric):
    """FID on the 2,048 pooled features of the Inception network that was published with it.

    torch-fidelity's extractor is proven equal to the original's, its resizing included. Published
    values are of 10,000 pictures and more.
    """

    name: ClassVar[str] = "fid"

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """The original network's weights, downloaded as torch-fidelity does, or a local file.

        Raises:
            InputError: for a file that is missing.
            AsyncDiffError: for one that is damaged or holds more than weights, or a failed
                download.
        """
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = _downloaded() if path is None else Path(path)
        read_state_dict(path)  # torch-fidelity would run what a pickle holds; this one holds none
        metric = cls()
        try:
            metric.model = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
        except Exception as error:  # of a state dict of another network
            raise AsyncDiffError(
                f"{path} is not the Inception network of FID ({one_line(error)})"
            ) from None
        metric.weights = file_sha256(path)[:16]
        return metric

    def _features(self, images: list[Image.Image]) -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        return self.model(pixels.permute(0, 3, 1, 2).to(self.device))[0]


def _downloaded() -> Path:
    """The published weights in torch's cache.

    Raises:
        AsyncDiffError: if they cannot be downloaded.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    if path.exists():
        return path
    digest = path.stem.rpartition("-")[2]  # the first of the file's SHA-256
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), digest, progress=False)
    except Exception as error:  # of urllib, or of torch where the hash is another
        raise AsyncDiffError(
            f"cannot download {URL_INCEPTION_V3} ({one_line(error)}): connect, or pass"
            " --reward-path fid=FILE"
        ) from None
    return path
