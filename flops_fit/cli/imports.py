"""Import paths: `package.module:attribute` to the object; the current folder is searched too."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
import sys
from types import ModuleType
from typing import Any

_PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


class NotFoundError(Exception):
    """An import path is malformed, or names nothing; the message says what was expected."""


def load(path: object) -> Any:
    """The object that `package.module:attribute` names.

    Raises:
        NotFoundError: The path is malformed, the module or attribute does not exist, or importing
            the module raises.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise NotFoundError(f"expected package.module:Name, got {path!r}{_suggestion(path)}")
    module_name, _, names = path.partition(":")
    found: Any = _module(module_name)
    for name in names.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise NotFoundError(f"{module_name} has no {names}{hint}")
        found = getattr(found, name)
    return found


def _module(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            # The module itself is missing, not a module that it imports.
            raise NotFoundError(
                f"there is no module {error.name!r} in {here} or among the installed packages"
                f"{_suggestion(f'{name}:') or _nearest(error.name)}"
            ) from error
        raise NotFoundError(f"{name} needs {error.name}, which is not installed") from error
    except Exception as error:
        raise NotFoundError(
            f"importing {name} raised {type(error).__name__}: {' '.join(str(error).split())} "
            "(--traceback shows where)"
        ) from error


def _nearest(name: str) -> str:
    """A hint at the module of the same package with the most similar name."""
    package, dot, last = name.rpartition(".")
    path = getattr(sys.modules.get(package), "__path__", None) if dot else None
    near = difflib.get_close_matches(last, [m.name for m in pkgutil.iter_modules(path)], 1)
    return f"; did you mean {package}{dot}{near[0]}?" if near else ""


def _suggestion(path: object) -> str:
    """A hint for the usual mistakes: a file path, or a dot in place of the colon."""
    if not isinstance(path, str):
        return ""
    module, colon, name = path.partition(":")
    if module.endswith(".py"):
        module = module.removesuffix(".py").removeprefix("./").replace("/", ".").lstrip(".")
    elif not colon and "." in module:
        module, _, name = module.rpartition(".")
    elif "/" in module:
        module = module.removeprefix("./").replace("/", ".")
    else:
        return ""
    return f"; did you mean {module}:{name or 'Name'}?"
