"""The scores of the published packages."""

from pathlib import Path

PARITY = Path(__file__).parents[2] / "benchmarks" / "parity"
TOLERANCE = {"image_reward": 1e-5, "hpsv2": 1e-6, "clip": 1e-6, "pickscore": 1e-4}
KEYS = {"image_reward": "imagereward"}
