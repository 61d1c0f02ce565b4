"""YAML as people expect it: safe, and with the scalars of YAML 1.2's core schema.

PyYAML follows YAML 1.1, in which `1e15` is text, `no` is false and `010` is eight. Here `1e15` is a
number, only words for true and false are booleans, and a key given twice is an error.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"
_SCALARS = (  # in the order in which they are tried
    ("null", r"~|null|Null|NULL||", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # none of YAML 1.1's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, without a key given twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str | int | float) else id(key))
        return super().construct_mapping(node, deep)


def _refuse(loader: _Loader, node: yaml.Node) -> None:
    """No tag makes an object."""
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    says = f"expected plain values, and import paths as text (my.module:Name); got the tag {tag}"
    raise yaml.constructor.ConstructorError(None, None, says, node.start_mark)


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_constructor(None, _refuse)  # any other tag


def load(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: It is none; says where.
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def scalar(text: str) -> Any:
    """A value as it would read in YAML: `4`, `1e-3`, `true`, `null`, `[1, 2]`, or text."""
    try:
        return load(text)
    except yaml.YAMLError:
        return text
