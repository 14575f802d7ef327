"""`asyncdiff recipes`: list, show, copy and check training recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.command import Command

if TYPE_CHECKING:
    from asyncdiff_cli.engine.training.recipe import Recipe

recipes = typer.Typer(
    help="List, show, copy and check training recipes.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=callbacks.complete_recipe, help="A shipped recipe."
    ),
]
NameOrPath = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=callbacks.complete_recipe,
        help="A shipped recipe, or a YAML file.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings to change, such as iterations=200, tpm.width=128 or rewards.noise=0.5.",
        show_default=False,
    ),
]


@recipes.callback()
def group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        render.line(context.get_help())


@recipes.command("list", cls=Command)
def list_recipes(json: options.Json = False) -> None:
    """List the shipped recipes."""
    from asyncdiff_cli.engine.training.recipe_files import load_recipe, names

    found = [{"name": name, **_summary(load_recipe(name))} for name in names()]
    if json:
        render.as_json({"recipes": found})
        return
    columns = {
        "name": "name",
        "backbone": "backbone",
        "prompts": "prompts",
        "bound": "bound",
        "steps": "num_inference_steps",
        "images": "images",
    }
    render.table(list(columns), [[_cell(row[key]) for key in columns.values()] for row in found])


@recipes.command(cls=Command)
def show(name: NameOrPath, overrides: Overrides = None, json: options.Json = False) -> None:
    """Print a recipe with all its settings, those that it leaves to defaults too.

    asyncdiff recipes show mini iterations=200 > mine.yaml
    """
    from asyncdiff_cli.engine.training.recipe_files import header, load_recipe, to_yaml

    recipe, comment = load_recipe(name, overrides or ()), header(name)
    if json:
        values = recipe.model_dump(mode="json")
        render.as_json({"name": name, "header": comment, "recipe": values, **_summary(recipe)})
        return
    for text in comment.splitlines():
        render.line(f"# {text}".rstrip())
    if overrides:
        render.line(f"#\n# With {' '.join(overrides)}: {_amount(_summary(recipe))}.")
    render.line(to_yaml(recipe).rstrip())


@recipes.command(cls=Command)
def copy(
    name: Name,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The new file.")],
    json: options.Json = False,
) -> None:
    """Copy a shipped recipe, with its comments, to change it.

    asyncdiff recipes copy flux-coco mine.yaml
    """
    from asyncdiff_cli.engine.training.recipe_files import copy_recipe

    copy_recipe(name, path)
    if json:
        render.as_json({"name": name, "path": str(path)})
    else:
        render.line(str(path))


@recipes.command(cls=Command)
def validate(name: NameOrPath, overrides: Overrides = None, json: options.Json = False) -> None:
    """Check a recipe, and say what it costs. All its problems are reported at once.

    asyncdiff recipes validate mine.yaml mini_batch_size=8
    """
    from asyncdiff_cli.engine.errors import InputError
    from asyncdiff_cli.engine.training.recipe_files import load_recipe

    try:
        found = _summary(load_recipe(name, overrides or ()))
    except InputError as error:
        if json:
            render.as_json({"name": name, "valid": False, "error": str(error)})
        raise
    if json:
        render.as_json({"name": name, "valid": True, **found})
    else:
        render.line(f"{name} is valid: {_amount(found)}")


def _summary(recipe: Recipe) -> dict[str, Any]:
    """What tells recipes apart, and what they cost."""
    from asyncdiff_cli.engine.training.recipe import cost

    names = ("backbone", "prompts", "bound", "num_inference_steps")
    return {**{name: getattr(recipe, name) for name in names}, **vars(cost(recipe))}


def _amount(found: dict[str, Any]) -> str:
    return f"{found['images']:,} images in {found['forward_passes']:,} denoiser forward passes"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"
