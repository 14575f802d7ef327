"""``python -m mini STAGE``: one stage, or all of them in the order of ``STAGES``.

Every stage resumes from its last checkpoint; ``export`` takes the transformer's as it is.
``reward_clip`` and ``reward_quality`` are measured on an exported pipeline, and go beside it.
"""

import argparse
import json
import os
from pathlib import Path

import torch

from asyncdiff_cli.engine import load_backbone
from mini import (
    clip,
    data,
    deviation,
    evaluate,
    export,
    quality,
    rewards_clip,
    rewards_quality,
    transformer,
    vae,
)
from mini.card import write_card
from mini.settings import Settings

STAGES = (
    *("data", "vae", "clip", "transformer", "export"),
    *("judge", "evaluate", "deviation", "card"),
    *("reward_clip", "reward_quality", "all"),
)
ASSETS = Path(__file__).parent.parent / "asyncdiff_cli" / "assets" / "mini"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mini", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--work", type=Path, default=Path("build/mini"), help="checkpoints and logs"
    )
    parser.add_argument("--out", type=Path, default=ASSETS, help="where the pipeline goes")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = Settings.smoke() if options.smoke else Settings()
    run(options.stage, settings, options.work, options.out)


def run(stage: str, settings: Settings, work: Path, out: Path) -> None:
    """Run one stage; those before it resume, or load if they are complete."""
    data.download(work / "npm")
    composer = data.Composer(data.load_concepts(work / "npm"), settings.scenes)
    if stage == "vae":
        vae.train(composer, settings, work)
    if stage in ("clip", "judge"):
        clip.train(composer, settings, work, stage)
    if stage in ("transformer", "export", "all"):
        parts = vae.train(composer, settings, work), clip.train(composer, settings, work)
        resume = stage != "export"  # which takes the last checkpoint as it is
        model, cache = transformer.train(composer, *parts, settings, work, resume)
        if stage != "transformer":
            export.export(composer, *parts, model, cache, settings, out)
    if stage in ("evaluate", "deviation", "all"):
        judge = clip.train(composer, settings, work, "judge")
    if stage in ("evaluate", "all"):
        pipe = evaluate.load_pipeline(out)
        save_json(evaluate.evaluate(pipe, judge, composer, settings), work / "evaluation.json")
        evaluate.sheet(pipe, composer, settings).save(work / "sheet.png")
    if stage in ("deviation", "all"):
        backbone = load_backbone("mini", model_path=out)
        retrieval = evaluate.Retrieval(judge, composer)
        save_json(deviation.measure(backbone, retrieval, composer), work / "deviation.json")
    if stage in ("card", "all"):
        metrics = {
            name: json.loads((work / f"{name}.json").read_text())
            for name in ("evaluation", "deviation")
        }
        save_json(metrics, out / "metrics.json")
        write_card(metrics, settings, out)
    if stage in ("reward_clip", "all"):
        model = clip.train(composer, settings, work, "reward_clip")
        pipe = evaluate.load_pipeline(out)
        rewards_clip.make(model, pipe, composer, settings, out.parent / "mini_clip")
    if stage in ("reward_quality", "all"):
        backbone = load_backbone("mini", model_path=out)
        net = quality.train(composer, backbone.pipe.vae, settings, work)
        target = out.parent / "mini_quality"
        rewards_quality.make(net, backbone, composer, settings, target)


def save_json(values: dict, path: Path) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
