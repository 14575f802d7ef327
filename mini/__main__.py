"""``python -m mini STAGE``: data, vae, clip, transformer, export, judge, evaluate, or all.

Every stage resumes from its last checkpoint; ``export`` takes the transformer's as it is.
"""

import argparse
import os
from pathlib import Path

import torch

from asyncdiff_cli.engine import load_backbone
from mini import clip, data, deviation, evaluate, export, transformer, vae
from mini.card import write_card
from mini.settings import Settings

STAGES = ("data", "vae", "clip", "transformer", "export", "judge", "evaluate", "all")
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
    if stage in ("evaluate", "all"):
        judge = clip.train(composer, settings, work, "judge")
        pipe = evaluate.load_pipeline(out)
        metrics = evaluate.evaluate(pipe, judge, composer, settings)
        metrics["deviation"] = deviation.measure(
            load_backbone("mini", model_path=out),
            evaluate.Retrieval(judge, composer),
            composer,
            settings,
        )
        evaluate.sheet(pipe, composer, settings).save(work / "sheet.png")
        evaluate.save_metrics(metrics, out / "metrics.json")
        write_card(metrics, settings, out)


if __name__ == "__main__":
    main()
