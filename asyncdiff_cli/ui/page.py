"""The page: its parts, and what each event of them does. Nothing but gradio knows of it."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.backbones.weights import presence
from asyncdiff_cli.engine.drawing.request import Request, parse_request
from asyncdiff_cli.engine.errors import AsyncDiffWarning, in_words
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.modules import own_policy
from asyncdiff_cli.engine.policies.specs import (
    find_policy,
    make_policy,
    plain,
    shipped_policies,
)
from asyncdiff_cli.ui import markup
from asyncdiff_cli.ui.curve import policy_of, schedule_line
from asyncdiff_cli.ui.studio import Studio
from asyncdiff_cli.ui.upload import LARGEST, received

if TYPE_CHECKING:
    import gradio as gr

HERE = Path(__file__).parent
MODEL = "model"
"""What waits for its turn: all events that use the model."""
EDITOR = """<div class="curve"><p class="readout" aria-live="polite"></p>
<svg role="group" aria-label="Deviation of each step"></svg>
<p class="hint">Drag a point, or draw over the field. Keys: ↑ ↓ move a point (with Shift finer, Page
farther), ← → go to the next one, 0 puts it back on the grid's own time.</p></div>"""

UPLOAD = """<label class="upload">Or upload a schedule, a spectrum, or a module's config.json and
model.safetensors <input type="file" multiple accept=".json,.safetensors"></label>"""

Values = dict[Any, Any]
"""What the page's parts hold, or are to hold, by part."""


class Page:
    """The parts of the page, around a studio.

    Args:
        request: what the page begins with.
    """

    def __init__(self, studio: Studio, request: Request) -> None:
        import gradio as gr

        self.studio, self.request = studio, request
        self.blocks = gr.Blocks(title="asyncdiff", analytics_enabled=False)
        with self.blocks:
            self.title = gr.HTML(self._title(), apply_default_css=False)
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._add_controls()
                with gr.Column(scale=3, min_width=320):
                    self._add_results()
            self._listen()

    def _add_controls(self) -> None:
        import gradio as gr

        request, studio = self.request, self.studio
        entry, name = studio.job.backbone.entry, studio.job.model.name
        start = studio.job.plan.batches[0].settings
        self.prompt = gr.Textbox(request.prompts[0], label="Prompt", max_lines=4)
        with gr.Row(equal_height=True):
            self.draw = gr.Button("Draw", variant="primary", min_width=80)
            self.live = gr.Checkbox(studio.is_quick, label="after every change", min_width=150)
        self.of_draw = _messages()
        with gr.Row():
            self.seed = gr.Number(request.seed or 0, label="Seed", precision=0, min_width=70)
            self.steps = gr.Number(
                start.num_inference_steps, label="Steps", precision=0, min_width=70
            )
            self.guidance = gr.Number(start.guidance_scale, label="Guidance", min_width=70)
        low, high = min(0.0, start.gamma), max(3.0, start.gamma)
        self.gamma = gr.Slider(low, high, start.gamma, step=0.05, label="γ, which multiplies D")
        lines, line = shipped_policies(entry), request.policy or own_policy(entry)
        self.policy = gr.Dropdown(lines, value=line, label="Policy", allow_custom_value=True)
        self.of_policy = _messages()
        with gr.Accordion("File and backbone", open=False):
            self.place = gr.Textbox(label="Load", placeholder="FILE.json, or a directory")
            self.load = gr.Button("Load", size="sm")
            self.upload = gr.HTML(
                {"largest": LARGEST},
                html_template=UPLOAD,
                js_on_load=(HERE / "upload.js").read_text(encoding="utf-8"),
                apply_default_css=False,
            )
            self.of_load = _messages()
            names = list(dict.fromkeys([name, *_here()]))
            self.backbone = gr.Dropdown(
                names, value=name, label="Backbone", allow_custom_value=True
            )
            self.of_backbone = _messages()

    def _add_results(self) -> None:
        import gradio as gr

        self.pictures = gr.HTML(elem_classes="late", apply_default_css=False)
        self.curve = gr.HTML(
            {"live": self.studio.is_quick},
            html_template=EDITOR,
            js_on_load=(HERE / "curve.js").read_text(encoding="utf-8"),
            apply_default_css=False,
        )
        with gr.Row(elem_classes="saving"):
            self.name = gr.Textbox("schedule.json", label="Schedule file", scale=2, min_width=130)
            self.save_schedule = gr.Button("Save the schedule", min_width=130)
            self.save = gr.Button("Save the pictures", min_width=130)
        self.of_save = _messages()
        self.stepwise = gr.Checkbox(False, label="x̂0 after every step")
        self.estimates = gr.HTML(apply_default_css=False)

    def _listen(self) -> None:
        """Connect each event with what it does."""
        import gradio as gr

        def on(triggers: list[Any], do: Answer, inputs: set[Any], outputs: set[Any]) -> None:
            def answer(values: Values, progress: gr.Progress = gr.Progress()) -> Values:  # noqa: B008
                return do(values, progress)

            gr.on(
                triggers, answer, inputs, outputs, trigger_mode="always_last", concurrency_id=MODEL,
                concurrency_limit=1, show_progress="minimal", show_progress_on=[self.pictures],
                api_visibility="private",
            )  # fmt: skip

        given = {self.prompt, self.seed, self.steps, self.guidance, self.gamma, self.policy,
                 self.curve, self.live, self.stepwise}  # fmt: skip
        shown = {self.pictures, self.curve, self.estimates, self.policy, self.gamma, self.of_draw,
                 self.of_policy}  # fmt: skip
        model = {self.title, self.of_backbone, self.steps, self.guidance}
        numbers = [self.seed.input, self.steps.input, self.guidance.input, self.gamma.input]
        changes = [*numbers, self.policy.input, self.stepwise.input, self.blocks.load]
        on([self.draw.click, self.prompt.submit], self._on_draw, given, shown)
        on(changes, self._on_change, given, shown)
        on([self.curve.input], self._on_drag, given, shown)
        load, backbone = {*given, self.place}, {*given, self.backbone}
        on([self.load.click, self.place.submit], self._on_load, load, {*shown, self.of_load})
        kept = {*shown, self.of_load, self.place, self.upload}
        on([self.upload.input], self._on_upload, {*given, self.upload}, kept)
        on([self.backbone.input], self._on_backbone, backbone, {*shown, *model})
        file, saved = {*given, self.name}, {self.of_save}
        on([self.save_schedule.click], self._on_save_schedule, file, saved)
        on([self.save.click], self._on_save, file, saved)

    def _on_draw(self, values: Values, progress: gr.Progress) -> Values:
        """Draw, and show what was drawn; what cannot be is said below the part that it is of."""
        with said(self.of_policy) as shown:
            spec = find_policy(self._line(values))
            make_policy(spec, self.studio.job.backbone.entry)
            gamma = values[self.gamma] if spec.gamma is None else spec.gamma
            chosen = {self.policy: spec.label, self.gamma: gamma}
            with said(self.of_draw) as drawn:
                drawn |= chosen
                drawn |= self._drawn(self._by(spec.label, {**values, **chosen}), progress)
            shown |= drawn
        return shown

    def _drawn(self, values: Values, progress: gr.Progress) -> Values:
        request, start = self._request(values), time.perf_counter()
        pair = self.studio.draw(request, lambda state: _tell(progress, state))
        seconds = time.perf_counter() - start
        scores = self.studio.scores(pair)
        rows = [self.studio.estimates(take) for take in pair.takes if values[self.stepwise]]
        for line in self.studio.warnings(pair.plan):
            _warn(line)
        return {
            self.pictures: markup.pictures(pair, scores),
            self.estimates: markup.estimates(pair, rows) if rows else "",
            self.curve: {
                **asdict(pair.asynchronous.curve),
                "serial": values[self.curve].get("serial", 0),
                "seconds": seconds,
                "live": values[self.live],
            },
        }

    def _on_change(self, values: Values, progress: gr.Progress) -> Values:
        return self._on_draw(values, progress) if values[self.live] else {}

    def _on_drag(self, values: Values, progress: gr.Progress) -> Values:
        values = self._by(self._line(values), values)
        shown = {self.policy: values[self.policy], self.curve: values[self.curve]}
        return {**shown, **self._on_change(values, progress)}

    def _on_load(self, values: Values, progress: gr.Progress) -> Values:
        with said(self.of_load) as shown:
            line = policy_of(values[self.place])
            make_policy(find_policy(line), self.studio.job.backbone.entry)
            shown[self.policy] = line
            shown |= self._on_change(self._by(line, values), progress)
        return shown

    def _on_upload(self, values: Values, progress: gr.Progress) -> Values:
        with said(self.of_load) as shown:
            shown[self.upload] = {"largest": LARGEST}  # which lets go of the files
            place, line = self.studio.keep(received(values[self.upload]))
            shown |= {self.place: str(place), self.policy: line}
            shown |= self._on_change(self._by(line, values), progress)
        return shown

    def _on_backbone(self, values: Values, progress: gr.Progress) -> Values:
        with said(self.of_backbone) as shown:
            self.studio.switch(values[self.backbone], _warn)
            entry = self.studio.job.backbone.entry
            shown[self.title] = self._title()
            line = own_policy(entry)
            own: Values = {
                self.policy: line,
                self.steps: entry.num_inference_steps,
                self.guidance: entry.guidance_scale,
            }
            shown |= own
            shown |= self._on_change(self._by(line, {**values, **own}), progress)
        return shown

    def _on_save(self, values: Values, progress: gr.Progress) -> Values:
        with said(self.of_save) as shown:
            pair = self.studio.draw(self._request(values), lambda state: _tell(progress, state))
            paths = [str(file.path) for file in self.studio.save(pair)]
            again = f"asyncdiff sample --from {shlex.quote(paths[1])} --out again"
            shown[self.of_save] = markup.lines("note", *paths, f"Draws it again: {again}")
        return shown

    def _on_save_schedule(self, values: Values, progress: gr.Progress) -> Values:
        with said(self.of_save) as shown:
            pair = self.studio.draw(self._request(values), lambda state: _tell(progress, state))
            path = self.studio.save_schedule(pair, values[self.name])
            policy = shlex.quote(f"schedule:{path}@{plain(values[self.gamma])}")
            again = f"asyncdiff sample {shlex.quote(values[self.prompt])} --policy {policy}"
            shown[self.of_save] = markup.lines("note", str(path), f"Draws with it: {again}")
        return shown

    def _line(self, values: Values) -> str:
        """The policy: of what the editor shows, if a drag of it has not been answered yet."""
        editor = values[self.curve]
        dragged = editor.get("dragged", False)
        return schedule_line(editor["deviations"]) if dragged else values[self.policy]

    def _by(self, line: str, values: Values) -> Values:
        """The values with another policy, which the editor leaves as it is."""
        return {**values, self.policy: line, self.curve: {**values[self.curve], "dragged": False}}

    def _request(self, values: Values) -> Request:
        """The request of what the parts hold.

        Raises:
            InputError: for what cannot be asked for.
        """
        return parse_request(
            prompts=(values[self.prompt],),
            seed=values[self.seed],
            steps=values[self.steps],
            guidance=values[self.guidance],
            gamma=values[self.gamma],
            policy=self._line(values),
            size=self.request.size,
        )

    def _title(self) -> str:
        job = self.studio.job
        model, backbone = job.model, job.backbone
        where = f"{model.dtype} on {model.device}, {backbone.scheduler} on the grid {backbone.grid}"
        return markup.title(f"{model.name}, {where}; what is saved goes to {job.out}")


Answer = Callable[[Values, "gr.Progress"], Values]
"""What an event does: of what the parts hold, with what tells of its progress."""


def _number(label: str, value: float, precision: int | None = None) -> gr.Number:
    import gradio as gr

    return gr.Number(value, label=label, precision=precision, min_width=70)


def _messages() -> gr.HTML:
    """A place for what is said of the part above it; it takes no room while there is nothing."""
    import gradio as gr

    return gr.HTML("", elem_classes="messages", apply_default_css=False)


@contextmanager
def said(part: Any) -> Iterator[Values]:
    """Show below a part what the block warns of, and in one line why it failed, if it did.

    Yields:
        What the parts are to show, for the block to add to.
    """
    shown: Values = {part: ""}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AsyncDiffWarning)
        try:
            yield shown
        except Exception as error:
            shown[part] += markup.lines("error", str(in_words(error)))
    texts = dict.fromkeys(str(warning.message) for warning in caught)
    shown[part] += markup.lines("warning", *texts)


def _tell(progress: gr.Progress, state: StepState) -> None:
    progress((state.index + 1, state.num_evaluations), desc=state.progress, unit="steps")


def _warn(line: str) -> None:
    warnings.warn(line, AsyncDiffWarning, stacklevel=2)


def _here() -> list[str]:
    """The backbones known by name that are on this disk."""
    return [name for name, entry in REGISTRY.items() if presence(entry).directory is not None]
