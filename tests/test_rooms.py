"""The house: imports run downward, each name is given once, and tests stand where modules do."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import asyncdiff_cli

PACKAGE = Path(asyncdiff_cli.__file__).parent
ENGINE = PACKAGE / "engine"
FLOORS = (
    {"version"},
    {"ground"},
    {"backbones", "rewards"},
    {"policies"},
    {"prompts"},
    {"sampling"},
    {"drawing"},
    {"training"},
    {"schedules"},
    {"evaluation"},
    {"figures"},
    {"publishing"},
    {"public"},
    {"ui"},
    {"commands"},
)
"""The rooms from the ground up. Those of one floor do not import each other."""
MAY_HOLD_CODE = {"", "engine", "engine/rewards", "engine/backbones/adapters"}
MAY_HOLD_CODE |= {"engine/evaluation/set_metrics"}
"""Packages whose `__init__` is more than a docstring."""
HEAVY = {"torch", "diffusers", "transformers", "open_clip", "accelerate", "peft", "matplotlib"}
TORCH_IN_THE_GROUND = {"deferred", "desync", "devices", "processes"}
LIGHT = {
    "backbones": "choice compatibility control_nets fingerprint lora named presence registry"
    " single_files variants vocabulary weights",
    "rewards": "__init__ world.grammar world.held_out world.questions world.vocabulary",
    "policies": "modules recorded schedule_file specs spectrum_file table",
    "prompts": "benchmarks coco compbench files hub_set lines load mini prompt_set split",
    "sampling": "arguments",
    "drawing": "checked_request dry_run estimate input_image panel plan planning provenance"
    " readiness redraw request seeds settings source_image",
    "training": "dry_run recipe recipe_files run run_options",
    "schedules": "distill_request journal request search",
    "evaluation": "comparison contender dry_run export import_scores imported layouts.table merge"
    " paper reproduce scoring set_metrics.__init__ set_metrics.reference store summary sweep_axis"
    " table_data table_files table_markup table_terminal tables",
    "publishing": "destination material upload",
    "figures": "distributions explain_request formats gallery report tiles",
}
"""Modules above the ground that commands use before anything heavy has to be imported."""
NO_NOUN = re.compile(r"(Of|As|Those|That|From|In|By|With|While|So|On|Over|Such|Per|Up|At|To)\b")
"""What no docstring begins with: it is half of a phrase whose other half is the name."""

TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in TREES
}


def imported(tree: ast.Module) -> set[str]:
    """The package's modules that a module imports, wherever in it that is written."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return names & MODULES.keys()


ARROWS = {name: imported(TREES[path]) for name, path in MODULES.items()}


def room(module: str) -> str:
    path = MODULES[module]
    if path == PACKAGE / "__init__.py":
        return "version"
    if path == ENGINE / "__init__.py":
        return "public"
    if ENGINE not in path.parents:
        return "ui" if path.parent == PACKAGE / "ui" else "commands"
    return "ground" if path.parent == ENGINE else path.relative_to(ENGINE).parts[0]


def floor(module: str) -> int:
    return next(n for n, rooms in enumerate(FLOORS) if room(module) in rooms)


def test_imports_run_downward():
    upward = [
        f"{module} imports {other}"
        for module, others in ARROWS.items()
        for other in others
        if room(module) != room(other) and floor(module) <= floor(other)
        # the scheduler is where diffusers looks for that of a saved pipeline
        if (module, room(other)) != ("asyncdiff_cli", "sampling")
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle():
    arrows = {module: others for module, others in ARROWS.items() if module != "asyncdiff_cli"}
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names them


def test_packages_hold_no_code_but_in_their_modules():
    for path, tree in TREES.items():
        package = path.parent.relative_to(PACKAGE).as_posix().removeprefix(".")
        if path.name == "__init__.py" and package not in MAY_HOLD_CODE:
            assert tree.body[ast.get_docstring(tree) is not None :] == [], path


def test_what_commands_refuse_with_needs_no_torch():
    ground = {path.stem for path in ENGINE.glob("[!_]*.py")} - TORCH_IN_THE_GROUND
    commands = [name for name in MODULES if room(name) == "commands" and "__main__" not in name]
    light = [
        *commands,
        *(f"asyncdiff_cli.engine.{name}" for name in ground),
        *(f"asyncdiff_cli.engine.{r}.{n}" for r, names in LIGHT.items() for n in names.split()),
    ]
    imports = "\n".join(f"import {name.removesuffix('.__init__')}" for name in light)
    code = f"{imports}\nimport sys\nprint(*sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr


def given(tree: ast.Module) -> Iterator[str]:
    """The public classes, functions and constants of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            yield from (name.id for name in names if isinstance(name.ctx, ast.Store))


def test_one_public_name_is_one_thing():
    places = defaultdict(set)
    for path, tree in TREES.items():
        if ENGINE in path.parents:
            for name in given(tree):
                places[name].add(path.relative_to(ENGINE).as_posix())
    several = {n: sorted(p) for n, p in places.items() if len(p) > 1 and not n.startswith("_")}
    assert not several


def docstrings(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Name and text of the docstrings below a node: of classes, functions and what is assigned."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            if text := ast.get_docstring(child):
                yield child.name, text
            if isinstance(child, ast.ClassDef):
                yield from docstrings(child)
    body = getattr(node, "body", [])
    for before, after in pairwise(body):
        match before, after:
            case (ast.Assign() | ast.AnnAssign(), ast.Expr(ast.Constant(str() as text))):
                yield ast.unparse(before).split(" ")[0], text


def test_docstrings_begin_with_what_they_are_about():
    root = Path(__file__).parents[1]
    folders = (PACKAGE, root / "benchmarks", root / "mini")
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        tree = TREES.get(path) or ast.parse(path.read_text(encoding="utf-8"))
        texts = [("the module", ast.get_docstring(tree) or ""), *docstrings(tree)]
        public = [(name, text.split("\n")[0]) for name, text in texts if name[0] != "_"]
        assert not [(name, line) for name, line in public if NO_NOUN.match(line)], path


def test_tests_stand_where_modules_do():
    tests = Path(__file__).parent / "engine"
    rooms = {p.parent.relative_to(ENGINE) for p in TREES if ENGINE in p.parents}
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert folders <= rooms
    assert {path.parts[0] for path in rooms if path.parts} <= {str(folder) for folder in folders}
    ground = {path.stem for path in ENGINE.glob("*.py")} | {"public"}
    assert {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")} <= ground


def test_nothing_imports_tests_but_tests_their_helpers():
    root = Path(__file__).parents[1]
    for path in (p for f in ("tests", "benchmarks", "mini") for p in (root / f).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("test_") for name in names), path
            assert names[:1] != ["tests"] or root / "tests" in path.parents, path


def test_the_map_in_the_documents_shows_what_is_there():
    page = (Path(__file__).parents[1] / "docs/extend.md").read_text(encoding="utf-8")
    shown = page.partition("## Map of the code")[2].partition("\n## ")[0]
    rooms = dict(re.findall(r"^ {8}(\w+)/ +(.*)$", shown, re.M))
    assert set(rooms) == set().union(*FLOORS) - {"version", "ground", "public", "ui", "commands"}
    for name, line in rooms.items():
        for file in re.findall(r"\w+\.py", line):
            assert (ENGINE / name / file).is_file(), f"{name}/{file}"
