"""The model card: ``card.md``, filled with the settings and the measured numbers."""

from pathlib import Path

from mini.settings import ART_PACKAGE, COLOURS, CONCEPTS, LABEL_PACKAGE, Settings

TEMPLATE = Path(__file__).with_suffix(".md")

ROWS = (
    ('right object first among all labels, "a {label}"', "top1"),
    ("right object among the first five", "top5"),
    ("ground of the right colour, unseen combinations", "colour"),
    ("both objects found, unseen pairs", "pair"),
)


def write_card(metrics: dict, settings: Settings, directory: Path) -> None:
    """Write ``README.md`` beside the weights that the numbers were measured on."""
    measured = metrics["evaluation"]
    rows = [
        f"| {title} (n = {measured[f'mini_{key}']['n']}) |"
        f" {_percent(measured[f'mini_{key}'])} | {_percent(measured[f'real_{key}'])} |"
        for title, key in ROWS
    ]
    psnr = measured["vae_psnr"]
    low, high = psnr["interval"]
    rows.append(
        f"| VAE reconstruction, unseen scenes (n = {psnr['n']}) |"
        f" {psnr['mean']:.2f} dB [{low:.2f}, {high:.2f}] | |"
    )
    weights = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
    own, sampling = settings.transformer, settings.sampling
    text = TEMPLATE.read_text().format(
        megabytes=weights / 1e6,
        size=settings.scenes.size,
        objects=len(CONCEPTS.split()),
        colours=len(COLOURS),
        steps=sampling.steps,
        guidance=sampling.guidance,
        padding=own.padding,
        art=ART_PACKAGE,
        labels=LABEL_PACKAGE,
        latent_channels=settings.vae.latent_channels,
        vae_steps=settings.vae.steps,
        vae_batch=settings.vae.batch,
        text_layers=settings.clip.text_layers,
        text_width=settings.clip.text_width,
        clip_steps=settings.clip.steps,
        clip_batch=settings.clip.batch,
        layers=own.layers,
        width=own.heads * own.head_dim,
        patch=own.patch,
        transformer_steps=own.steps,
        transformer_batch=own.batch,
        rows="\n".join(rows),
        deviations="\n".join(_deviation_rows(metrics["deviation"])),
    )
    (directory / "README.md").write_text(text)


def _deviation_rows(table: dict) -> list[str]:
    def cell(measures: dict, name: str, digits: int) -> str:
        low, high = measures[name]["change"]["interval"]
        change = f" [{low:+.{digits}f}, {high:+.{digits}f}]" if low != high else ""
        return f"{measures[name]['mean']:.{digits}f}{change}"

    rows = []
    for d, measures in table.items():
        if d == "real":
            continue
        digits = {"similarity": 3, "right": 3, "detail": 2, "noise": 2}
        cells = [cell(measures, name, count) for name, count in digits.items()]
        rows.append(f"| {d} | {' | '.join(cells)} |")
    real = table["real"]
    rows.append(
        f"| real art | {real['similarity']:.3f} | {real['right']:.3f} |"
        f" {real['detail']:.2f} | {real['noise']:.2f} |"
    )
    return rows


def _percent(measure: dict) -> str:
    low, high = measure["interval"]
    return f"{100 * measure['mean']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
