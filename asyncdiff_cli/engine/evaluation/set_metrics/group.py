"""The set metrics of an evaluation together: loaded once, and in turns on a small GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from asyncdiff_cli.engine.evaluation.set_metrics import get
from asyncdiff_cli.engine.evaluation.set_metrics.reference import Reference
from asyncdiff_cli.engine.evaluation.set_metrics.reference_statistics import (
    expected,
    is_kept,
    statistics_of,
    write_statistics,
)
from asyncdiff_cli.engine.rewards.group import Group, lent


class SetMetricGroup(Group):
    """Set metrics by name. They wait on the CPU until they are placed.

    Args:
        names: of the metrics; none is a group that does nothing.
        paths: local files of their weights, by name.
        device: where features are computed.
        offload: keep the models on the CPU, and on the device a copy of the one that is at work.

    Raises:
        InputError, AsyncDiffError: for the first metric that cannot be loaded.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        paths: Mapping[str, str | Path] | None = None,
        device: torch.device | str = "cpu",
        offload: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.offload = offload and self.device.type != "cpu"
        self.metrics = {name: get(name).load((paths or {}).get(name)) for name in names}

    @property
    def models(self) -> dict[str, nn.Module | None]:
        return {name: metric.model for name, metric in self.metrics.items()}

    def features(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The features of each metric, fp32 [N, F] on the CPU.

        Raises:
            AsyncDiffError: for one that is NaN or infinite.
        """
        features = {}
        for name, metric in self.metrics.items():
            with lent(metric.model, self.device):
                features[name] = metric.features(images)
        return features

    def settings(self, reference: Reference) -> dict[str, dict[str, Any]]:
        """What the rows of a store share of them, as JSON values."""
        return {
            name: {
                "weights": metric.weights,
                "reference": reference.fingerprint,
                "reference_images": reference.images,
            }
            for name, metric in self.metrics.items()
        }

    def keep(self, reference: Reference, side: int, directory: Path) -> None:
        """Write the reference's statistics into a directory, unless they are there.

        Args:
            side: of the pictures that are drawn.

        Raises:
            InputError: as `statistics_of`.
            AsyncDiffError: if they cannot be written.
        """
        made = {name: expected(metric, side) for name, metric in self.metrics.items()}
        if is_kept(directory, reference, made):
            return
        statistics = {}
        for name, metric in self.metrics.items():
            with lent(metric.model, self.device):
                statistics[name] = statistics_of(reference, metric, side)
        write_statistics(directory, reference, statistics, made)
