"""Tiny benchmarks, stores of their prompts, and results as the official scorers write them.

The forms are those of djghosh13/geneval, facebookresearch/GenEval2, TencentQQGYLab/ELLA,
Karine-Huang/T2I-CompBench and tgxs002/HPSv2.
"""

import json
from pathlib import Path

from PIL import Image

from asyncdiff_cli.engine.evaluation.contender import seed_of_noise
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.prompts.load import load_evaluation_prompts
from tests.helpers.prompts import write_lists
from tests.helpers.stores import SETTINGS, row

TREES = ("baseline-gamma1-steps3", "fixed-0.5-gamma1-steps3")
NOISES = {"geneval": 2, "geneval2": 1, "dpg": 4, "t2i-compbench": 2, "hpsv2": 1}
STYLES = ("anime", "concept-art", "paintings", "photo")


def write_benchmark(name: str, directory: Path) -> Path:
    """The prompts of a benchmark in its own form; what --prompts takes."""
    if name == "t2i-compbench":
        for file in write_lists(directory).iterdir():
            file.write_text(file.read_text().replace("_", " "))  # no official one has any
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    if name == "dpg":
        for stem in ("10", "9", "COCOval2014000000000042"):
            (directory / f"{stem}.txt").write_text(f" A long prompt, {stem}. \n")
        return directory
    if name == "hpsv2":
        for style in STYLES:
            text = json.dumps([f"{style}, first", f"{style}, second"])
            (directory / f"{style}.json").write_text(text)
        return directory
    file = directory / "prompts.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in LINES[name]))
    return file


LINES = {
    "geneval": [
        {"tag": tag, "include": [{"class": thing, "count": 1}], "prompt": f"a photo of a {thing}"}
        for tag, thing in (("single_object", "bench"), ("colors", "cow"), ("colors", "bus"))
    ],
    "geneval2": [
        {
            "prompt": f"two white {thing}s",
            "atom_count": 3,
            "vqa_list": [["How many?", "two"], ["Are they white?", "Yes"]],
            "skills": ["count", "attribute"],
        }
        for thing in ("cow", "bus")
    ],
}


def colour(prompt_id: int, number: int, policy: int) -> tuple[int, int, int]:
    """The one colour of an image."""
    return 10 * prompt_id, 60 * number, 200 * policy


def make_scored_store(
    path: Path, name: str, prompts: Path, noises: int = 0, limit: int | None = None
) -> Store:
    """Two policies on the prompts of a benchmark, with an image of 4×4 pixels of each."""
    texts = load_evaluation_prompts(name, path=prompts)
    shared = {"dataset": name, "prompts_sha256": texts.fingerprint}
    store = Store.open(path, {**SETTINGS, **shared})
    store.begin()
    store.image("images/a.png").parent.mkdir()
    rows = []
    for prompt_id, place in enumerate(texts.order(limit or len(texts), 42)):
        for number in range(noises or NOISES[name]):
            for policy, label in enumerate(("baseline", "fixed:0.5")):
                image = f"images/{prompt_id}-{number}-{policy}.png"
                picture = Image.new("RGB", (4, 4), colour(prompt_id, number, policy))
                picture.save(store.image(image))
                seed = seed_of_noise(42, prompt_id, number)
                category = texts.categories[place] if texts.categories else None
                changes = {"prompt": texts.texts[place], "category": category, "image": image}
                rows.append(row(prompt_id, label, seed=seed, **changes))
    store.write(rows)
    return store


def files_below(directory: Path) -> list[str]:
    """The paths of all files, in order."""
    return sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )


def score_geneval(out: Path, correct=lambda tree, place, number: True) -> None:
    """Lines as evaluate_images.py writes them with pandas."""
    for tree in TREES:
        lines = []
        for folder in sorted((out / tree).glob("[0-9]*")):
            metadata = json.loads((folder / "metadata.jsonl").read_text())
            for image in sorted((folder / "samples").iterdir()):
                line = {
                    "filename": str(image),
                    "tag": metadata["tag"],
                    "prompt": metadata["prompt"],
                    "correct": correct(tree, int(folder.name), int(image.stem)),
                    "reason": "",
                    "metadata": json.dumps(metadata),
                    "details": "{}",
                }
                lines.append(json.dumps(line).replace("/", "\\/"))
        (out / tree / "results.jsonl").write_text("\n".join(lines) + "\n")


def score_geneval2(out: Path, scores: dict[str, list[list[float]]]) -> None:
    """A list of each prompt's scores, as evaluation.py writes it."""
    for tree, lists in scores.items():
        (out / tree / "score_lists.json").write_text(json.dumps(lists))


def score_dpg(out: Path, scores=lambda tree, stem: [1.0, 0.5, 0.25, 0.0]) -> None:
    """Lines as compute_dpg_bench.py writes them, and its summary."""
    for tree in TREES:
        lines = []
        for image in sorted((out / tree).glob("*.png")):
            each = scores(tree, image.stem)
            lines.append(", ".join([str(image), *map(str, each), str(sum(each) / 4)]))
        summary = ["Model: x", "L1 category scores:", "\tentity: 90.5", "DPG-Bench score: 43.75"]
        name = "dpg-bench_20261127-120000_results.txt"
        (out / tree / name).write_text("\n".join([*lines, *summary]) + "\n")


def score_compbench(out: Path, category: str, scorer: str, answers: dict[str, list[str]]) -> None:
    """Answers by the numbers of pictures, as a category's scorer writes them."""
    for tree, own in answers.items():
        file = out / tree / category / scorer / "vqa_result.json"
        file.parent.mkdir(parents=True)
        lines = [{"question_id": number, "answer": answer} for number, answer in enumerate(own)]
        file.write_text(json.dumps(lines))
