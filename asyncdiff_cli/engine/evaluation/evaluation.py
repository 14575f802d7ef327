"""Draw and score every prompt with every policy, into a store that can be killed and resumed.

The policies of one prompt start from the same noise and share its batch. What is in the store
already is not drawn again; several processes, or shards on several machines, take the prompts in
turns.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image

from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.drawing.parameters import parameters_chunk, parameters_of
from asyncdiff_cli.engine.drawing.provenance import Provenance, save_png
from asyncdiff_cli.engine.evaluation.contender import Contender, EvaluationCell, key
from asyncdiff_cli.engine.evaluation.set_metrics.group import SetMetricGroup
from asyncdiff_cli.engine.evaluation.shards import places, remove_encoded
from asyncdiff_cli.engine.evaluation.store import IMAGES, Store
from asyncdiff_cli.engine.evaluation.store_rows import features_of
from asyncdiff_cli.engine.policies.per_image import EachPolicy
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards.group import RewardGroup

AHEAD = 2048
"""Prompts that are encoded, then drawn, then the next ones: the first picture does not wait for
all of them."""


@dataclass
class Evaluation:
    """An evaluation in progress.

    Attributes:
        prompts: the whole set, of which `order` are drawn, in this order.
        seed: of the noises; the n-th prompt's is a function of it and n.
        kept_images: of the first so many prompts the images are kept.
        set_metrics: whose features of every image are kept.
        num_images: of each prompt, each of a noise of its own.
        parameters: whether images say in words that other tools read what drew them.
        encode: encodes prompts that are yet to be; None where all are, or as they are drawn.
        shard: (i, n): this evaluation is the i-th of n, each of which may be several processes.
        options: all that were in force, as JSON values.
    """

    accelerator: Accelerator

    canvas: Canvas
    scorers: RewardGroup
    store: Store
    prompts: PromptSet
    order: Sequence[int]
    contenders: Sequence[Contender]
    seed: int
    batch_size: BatchSize
    kept_images: int
    shard: tuple[int, int] = (0, 1)
    options: Mapping[str, Any] = field(default_factory=dict)
    encode: Callable[[Canvas, Sequence[str]], None] | None = None
    set_metrics: SetMetricGroup = field(default_factory=SetMetricGroup)
    num_images: int = 1
    parameters: bool = True
    clock: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Stopwatch(self.canvas.backbone.device)

    def pending(self) -> list[EvaluationCell]:
        """What this process has still to draw, prompt by prompt."""
        done, first = self.store.keys(), self.accelerator.process_index
        mine = places(len(self.order), self.shard)[first :: self.accelerator.num_processes]
        cells = (
            EvaluationCell(prompt_id, contender, number)
            for prompt_id in mine
            for number in range(self.num_images)
            for contender in self.contenders
        )
        return [cell for cell in cells if key(self.seed, cell) not in done]

    def finish(self, drawn: int) -> int | None:
        """Wait for the other processes, and tidy up.

        Args:
            drawn: how many images this one has drawn.

        Returns:
            How many all of them have, in the process that goes on; None in the others.
        """
        total = sum(gather_object([drawn]))
        if not self.accelerator.is_main_process:
            return None
        if self.canvas.text is not None:
            self.canvas.text.remove()
            remove_encoded(self.store.path, self.shard)
        self.store.compact()
        return total

    def run(self, cells: Sequence[EvaluationCell]) -> Iterator[int]:
        """Draw, score and store; yields how many rows each new file has.

        Raises:
            AsyncDiffError: for NaN in an image or a score, or if one image does not fit.
        """
        for chunk in self._encoded(self._chunks(cells)):
            for steps in dict.fromkeys(cell.contender.steps for cell in chunk):
                left = [cell for cell in chunk if cell.contender.steps == steps]
                while left:
                    batch = left[: self.batch_size.value]
                    rows = self._rows(batch)
                    if rows is not None:
                        self.store.write(rows)
                        left = left[len(batch) :]
                        yield len(rows)

    def _encoded(self, chunks: Iterable[list[EvaluationCell]]) -> Iterator[list[EvaluationCell]]:
        """The same, of whose prompts those of the next ones are encoded, so many at a time."""
        waiting: list[list[EvaluationCell]] = []
        for chunk in chunks:
            waiting.append(chunk)
            if len({cell.prompt_id for held in waiting for cell in held}) >= AHEAD:
                yield from self._with_text(waiting)
                waiting = []
        yield from self._with_text(waiting)

    def _with_text(self, chunks: Sequence[list[EvaluationCell]]) -> Sequence[list[EvaluationCell]]:
        places = dict.fromkeys(cell.prompt_id for chunk in chunks for cell in chunk)
        if self.encode is not None:
            self.encode(self.canvas, [self.text(place) for place in places])
        return chunks

    def _chunks(self, cells: Sequence[EvaluationCell]) -> Iterator[list[EvaluationCell]]:
        """The cells of as many whole noises as fit into a batch of each number of steps."""
        chunk: list[EvaluationCell] = []
        for _, same_noise in itertools.groupby(cells, lambda cell: (cell.prompt_id, cell.number)):
            more = list(same_noise)
            counts = Counter(cell.contender.steps for cell in chunk + more)
            if chunk and max(counts.values()) > self.batch_size.value:
                yield chunk
                chunk = []
            chunk += more
        if chunk:
            yield chunk

    def _rows(self, batch: list[EvaluationCell]) -> list[dict[str, Any]] | None:
        """The rows of a batch of equal steps; None if it did not fit."""
        # images of equal policies lie side by side, so that a policy is asked once for all of them
        batch.sort(key=lambda cell: self.contenders.index(cell.contender))
        texts = [self.text(cell.prompt_id) for cell in batch]
        seeds = [key(self.seed, cell).seed for cell in batch]
        chosen = [cell.contender for cell in batch]
        policy = EachPolicy([c.policy for c in chosen], [c.gamma for c in chosen])
        encoded = self.canvas.encode(texts)
        before = sum(self.clock.seconds.values())
        drawn = self.canvas.draw_if_it_fits(
            [encoded[text] for text in texts],
            seeds,
            policy,
            chosen[0].steps,
            self.clock,
            self.batch_size,
        )
        if drawn is None:
            return None
        images, result = drawn
        seconds = (sum(self.clock.seconds.values()) - before) / len(batch)
        with self.clock("rewards"):
            scores = self.scorers.score(images, texts)
            features = self.set_metrics.features(images)
        records = self.canvas.describe(result, texts, seeds, policy, chosen[0].steps)
        self.store.begin()
        return [
            {
                **key(self.seed, cell)._asdict(),
                "prompt": texts[n],
                "category": self.category(cell.prompt_id),
                "deviations": result.deviations[n].tolist(),
                "cond_sigmas": result.cond_sigmas[n].tolist(),
                "seconds": seconds,
                "image": self._keep(cell, images[n], records[n]),
                "policy_settings": cell.contender.description,
                "provenance": records[n].model_dump_json(),
                **{name: float(values[n]) for name, values in scores.items()},
                **{features_of(name): values[n].numpy() for name, values in features.items()},
            }
            for n, cell in enumerate(batch)
        ]

    def _keep(self, cell: EvaluationCell, image: Image.Image, record: Provenance) -> str | None:
        """Write an image that is kept; its path in the store."""
        if cell.prompt_id >= self.kept_images:
            return None
        number = f"-{cell.number}" if cell.number else ""
        name = f"{IMAGES}/{cell.prompt_id:06d}{number}-{cell.contender.setting.file}.png"
        text = parameters_of(record, self.canvas.backbone) if self.parameters else ""
        save_png(image, self.store.image(name), record, parameters_chunk(text))
        return name

    def text(self, prompt_id: int) -> str:
        """A prompt by its place in the evaluation."""
        return self.prompts.texts[self.order[prompt_id]]

    def category(self, prompt_id: int) -> str | None:
        """Its category, for a set that has some."""
        return self.prompts.categories[self.order[prompt_id]] if self.prompts.categories else None
