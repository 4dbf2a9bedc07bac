"""Import strings, `module:attribute` or `module:factory()`, and what is wrong with one, in a sentence."""

from __future__ import annotations

import importlib
import re
from typing import Any

from asgi_mcp_auth._protocol.mapping import UnusableError
from asgi_mcp_auth._protocol.problems import show

__all__ = ("import_object",)

NAME = r"[^\W\d]\w*"
_IMPORT_STRING = re.compile(rf"(?P<module>{NAME}(?:\.{NAME})*):(?P<attribute>{NAME}(?:\.{NAME})*)(?P<call>\(\))?")


def import_object(text: str) -> Any:
    """The object that an import string names; with `()`, what it returns when it is called without arguments.

    Raises:
        UnusableError: The string has another form, or there is no such module or attribute. What a module or
            a factory raises itself passes through: it is theirs, and its traceback is wanted.
    """
    match = _IMPORT_STRING.fullmatch(text)
    if match is None:
        fix = "Write 'module:attribute', or 'module:factory()'."
        raise UnusableError(f"{show(text)} is not an import string.", fix)
    module = match["module"]
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module and not module.startswith(missing + "."):
            raise  # the module is there, and something that it imports is not
        fix = "Check the name, and that its folder is on the import path (PYTHONPATH, or the server's option)."
        raise UnusableError(f"{show(text)}: there is no module {show(missing)}.", fix) from error
    for name in match["attribute"].split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            what = f"{show(text)}: {module} has no attribute {show(match['attribute'])}."
            raise UnusableError(what, "Check the name after the colon.") from error
    if match["call"] is None:
        return found
    if not callable(found):
        raise UnusableError(f"{show(text)}: it is not a factory.", "Leave out the parentheses.")
    return found()
