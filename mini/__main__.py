"""``python -m mini STAGE``: one stage after those before it, or ``all`` of them.

Stages that were completed load; the others resume from their last checkpoints. On a GPU
``--minutes`` says how long all stages together may take, from the process's start; without it a
stage takes the steps of its settings.

  sprites         the art, packed; the only stage that needs a network
  judge           the detector that knows the truth
  vae             the autoencoder
  transformer     the transformer and its text towers
  reward_clip     the image-text reward
  reward_quality  the reward that reads no prompt
  export          everything in fp16, from the last checkpoints as they are
  evaluate        measures, sheet and figure of what was exported
  card            the cards, from the measures

  pack            OUT: code and sprites for a machine without a network
  split           OUT: WORK in pieces of at most 15 MiB, or only the parts that --only names
  join            OUT: what split had packed, from its pieces in WORK
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

STAGES = (
    "judge",
    "vae",
    "transformer",
    "reward_clip",
    "reward_quality",
    "export",
    "evaluate",
    "card",
)
MODELS = ("mini_judge", "mini_clip", "mini_quality", "mini")


def main() -> None:
    options = parse()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.stage in ("split", "join"):
        move(options)
        return

    from mini import art

    sprites = art.make(options.work)
    if options.stage == "pack":
        from mini import pack

        size = pack.gather(sprites, options.out, options.python, options.complete)
        print(f"{options.out}: {size / 2**20:.1f} MiB")
    if options.stage in ("sprites", "pack"):
        return

    from mini import stages, training
    from mini.settings import Settings

    kind = "smoke" if options.smoke else "cpu" if options.cpu else "gpu"
    settings = getattr(Settings, kind)()
    if options.scale != 1:
        settings = settings.scaled(options.scale)
    for stage in options.more:
        training.reopen(options.work / stage)
    deadline = process_start() + 60 * options.minutes if options.minutes else None
    out = options.out or options.work / "out"
    plan = stages.Plan(
        settings, sprites, options.work, out, deadline, options.threads, options.mini,
        options.models,
    )  # fmt: skip
    for stage in STAGES if options.stage == "all" else (options.stage,):
        plan.run(stage)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mini", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    choices = ("sprites", *STAGES, "all", "pack", "split", "join")
    parser.add_argument("stage", choices=choices, metavar="STAGE")
    parser.add_argument("--work", type=Path, default=Path("build/mini"), help="checkpoints, logs")
    parser.add_argument("--out", type=Path, help="where the models go; default WORK/out")
    parser.add_argument("--only", nargs="+", help="files and directories of WORK to split")
    parser.add_argument("--python", help="pack wheels too, for this version of Python")
    parser.add_argument(
        "--complete", nargs="+", default=[], metavar="STAGE", help="complete stages to pack too"
    )
    parser.add_argument("--minutes", type=float, help="time for all stages")
    parser.add_argument(
        "--more", nargs="+", default=[], metavar="STAGE", help="complete stages to train for longer"
    )
    parser.add_argument(
        "--mini", type=Path, metavar="DIR", help="an exported mini, in place of what WORK has"
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL",
        help="what to export, evaluate and describe",
    )  # fmt: skip
    parser.add_argument("--scale", type=float, default=1.0, help="share of the settings' steps")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, two steps")
    parser.add_argument("--cpu", action="store_true", help="the steps and batches for a CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    options = parser.parse_args()
    if options.out is None and options.stage in ("pack", "split", "join"):
        parser.error(f"{options.stage} needs --out")
    return options


def move(options: argparse.Namespace) -> None:
    from mini import pieces

    if options.stage == "join":
        pieces.join(options.work, options.out)
    else:
        print(f"{options.out}: {pieces.split(options.work, options.out, options.only)} pieces")


def process_start() -> float:
    """When this process began, on the clock of `time.monotonic`; now where that is not known."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        booted = time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return ticks / os.sysconf("SC_CLK_TCK") + booted
    except (OSError, ValueError, AttributeError):
        return time.monotonic()


if __name__ == "__main__":
    main()
