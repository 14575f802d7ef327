"""The layouts by the names of their benchmarks."""

from __future__ import annotations

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.evaluation.layouts.base import Layout
from asyncdiff_cli.engine.evaluation.layouts.compbench import CompBench
from asyncdiff_cli.engine.evaluation.layouts.dpg import DPGBench
from asyncdiff_cli.engine.evaluation.layouts.geneval import GenEval
from asyncdiff_cli.engine.evaluation.layouts.geneval2 import GenEval2
from asyncdiff_cli.engine.evaluation.layouts.hpsv2 import HPSv2Benchmark

LAYOUTS: dict[str, Layout] = {
    "geneval": GenEval(),
    "geneval2": GenEval2(),
    "dpg": DPGBench(),
    "t2i-compbench": CompBench(),
    "hpsv2": HPSv2Benchmark(),
}


def find_layout(name: str) -> Layout:
    """The layout of a benchmark.

    Raises:
        InputError: for one that is not known.
    """
    check_choice("layout", name, LAYOUTS)
    return LAYOUTS[name]
