"""YAML with the scalars of YAML 1.2's core schema, and no key twice.

PyYAML reads 1.1, where `010` is 8, `2:08` is 128, `no` is false and `1e-4` is a text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

SCHEMA = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}
"""What plain scalars are read as, by the first that fits all of one (10.3.2 of the standard), and
the merge key of 1.1, which recipes may use."""


class Loader(yaml.SafeLoader):
    """Reads plain data."""

    yaml_implicit_resolvers: dict[str | None, Any] = {}  # noqa: RUF012 - as PyYAML declares it

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose as PyYAML does, which lets a later key win over the same one before it."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                problem = f"{key.value} is there twice, in line {lines[name]} and in line {line}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[name] = line
        return node


class Dumper(yaml.SafeDumper):
    """Writes plain data that both 1.1 and 1.2 read as what it was."""


def _integer(loader: Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for name, pattern in SCHEMA.items():
    for kind in (Loader, Dumper):
        whole = re.compile(rf"(?:{pattern})\Z")
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", whole, None)
Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def load(text: str) -> Any:
    """The value of a document.

    Raises:
        yaml.YAMLError: for what is no YAML, or a key that is there twice.
    """
    return yaml.load(text, Loader)


def dump(values: Any) -> str:
    """A document of the values, in their order; `load` reads it back."""
    # not allow_unicode, with which PyYAML does not read back U+0085 in a string
    text: str = yaml.dump(
        values, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=100
    )
    return text
