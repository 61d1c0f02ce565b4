"""YAML with the scalars of YAML 1.2's core schema, and without objects.

PyYAML follows YAML 1.1, which reads `1e15` as text, `no` as false and `010` as eight. This loader
reads `1e15` as a number and `010` as ten, takes only `true` and `false` as booleans, leaves dates
as text, and reports a key that is given twice.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_PREFIX = "tag:yaml.org,2002:"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"
# Tag, pattern, and the characters that a scalar of this type can start with ("" if it is empty).
# The first matching pattern wins, so integers come before floats.
_SCALARS = (
    ("null", r"~|null|Null|NULL||", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # replaces those of YAML 1.1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; raises if a key is given twice, where PyYAML would keep the last value."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _refuse_tag(loader: _Loader, node: yaml.Node) -> None:
    tag = node.tag.replace(_PREFIX, "!!")
    message = f"expected plain values, and import paths as text (my.module:Name); got the tag {tag}"
    raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(f"{_PREFIX}{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor(f"{_PREFIX}int", lambda loader, node: int(node.value))
_Loader.add_constructor(None, _refuse_tag)  # every tag without a constructor of its own


def load(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: The text is not valid YAML; the error has the position.
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def scalar(text: str) -> Any:
    """An option's value, parsed as YAML (`4`, `1e-3`, `true`, `[1, 2]`), else as text."""
    try:
        return load(text)
    except yaml.YAMLError:
        return text
