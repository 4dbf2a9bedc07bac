"""Constructing `MCPAuth` from a mapping, a TOML file or the environment: the same settings under the same names.

A hook is named by an import string, so the author of the file decides what code is imported: a configuration file
must be trusted like the program.
"""

from __future__ import annotations

import importlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from asgi_mcp_auth._policy.problems import Problems, as_list, as_mapping, show
from asgi_mcp_auth._settings.reader import Field, Reader, UnusableError, known_or_not, shapes_of
from asgi_mcp_auth._settings.shorthand import SHORTHAND, from_shorthand
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = (
    "from_env",
    "from_mapping",
    "from_toml",
    "import_object",
    "line_of",
    "settings_of",
)

MAX_SEARCHED_LINES = 2000
_STEP = re.compile(r"(?:^|\.)(\w+)|\[(\d+)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")


def line_of(text: str, where: str) -> int | None:
    """The line on which a place of a well-formed document is written, as far as the place exists; None if nowhere.

    TOML has no statement that is well-formed when it is cut: so the first lines of a document that parse end with a
    whole statement, and the statement begins on the line after those that parsed before.

    Args:
        text: The document.
        where: `protected_resources[0].policy.paths['/x']`.
    """
    path = [int(number) if number else key or single or double for key, number, single, double in _STEP.findall(where)]
    lines = text.splitlines(keepends=True)
    if len(lines) > MAX_SEARCHED_LINES:
        return None
    found: int | None = None
    deepest = parsed = 0
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        if (depth := _depth(document, path)) > deepest:
            found, deepest = parsed + 1, depth
        parsed = count
    return found


def _depth(document: Any, path: list[Any]) -> int:
    """How many steps of the path exist."""
    here = document
    for depth, step in enumerate(path):
        items, table = as_list(here), as_mapping(here)
        if items is not None and isinstance(step, int) and step < len(items):
            here = items[step]
        elif table is not None and step in table:
            here = table[step]
        else:
            return depth
    return len(path)


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


T = TypeVar("T")

PREFIX = "MCP_AUTH_"
MAX_FILE_BYTES = 1024 * 1024


def settings_of(settings: type[Any]) -> dict[str, Field]:
    """Return every setting of a configuration file by name, as a `TypedDict` of `Option` declares them."""
    return {
        name: Field(name, shapes_of(hint.__origin__), False, hint.__metadata__[0].default, hint.__metadata__[0].meaning)
        for name, hint in settings.__annotations__.items()
    }


def from_mapping(
    configured: Callable[..., T], known: type[Any], settings: Mapping[str, Any], options: Mapping[str, Any]
) -> T:
    """Construct from plain values; see `MCPAuth.from_mapping`. `known` declares the settings."""
    return _construct(configured, known, settings, options, folder=Path(), place=lambda problem: problem)


def from_toml(
    configured: Callable[..., T], known: type[Any], path: str | os.PathLike[str], options: Mapping[str, Any]
) -> T:
    """Construct from a TOML file; see `MCPAuth.from_toml`."""
    file = Path(path)
    try:
        text = _read(file)
        settings = tomllib.loads(text)
    except UnusableError as error:
        raise ConfigurationError([Problem(str(file), error.what, error.fix)]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([Problem(str(file), f"It is not TOML: {error}.", "Mend it there.")]) from error

    def place(problem: Problem) -> Problem:
        line = line_of(text, problem.where)
        return problem._replace(where=f"{file}{'' if line is None else f':{line}'}: {problem.where}")

    return _construct(configured, known, settings, options, folder=file.parent, place=place)


def from_env(
    configured: Callable[..., T], known: type[Any], environ: Mapping[str, str] | None, options: Mapping[str, Any]
) -> T:
    """Construct from the environment; see `MCPAuth.from_env`."""
    environ = os.environ if environ is None else environ
    given = {name: text for name, text in environ.items() if name.startswith(PREFIX)}
    path = given.pop(f"{PREFIX}CONFIG", None)
    if path is None and not given and not options:
        fix = f"Set {PREFIX}RESOURCE and {PREFIX}AUTHORIZATION_SERVERS, or {PREFIX}CONFIG to the path of a TOML file."
        raise ConfigurationError([Problem("environment", f"There is no {PREFIX}… variable.", fix)])
    if path is None:
        return _construct(configured, known, _Environment(given), options, folder=Path(), place=_in_capitals)
    if given:
        what = f"{', '.join(sorted(given))}: beside {PREFIX}CONFIG, nothing else is read."
        fix = 'Unset them, or write {from_env = "NAME"} in the file.'
        raise ConfigurationError([Problem(f"{PREFIX}CONFIG", what, fix)])
    return from_toml(configured, known, path, options)


class _Environment(dict[str, str]):
    """Settings that are text, by variable."""


def _in_capitals(problem: Problem) -> Problem:
    """A problem with a setting, at the variable that it came from."""
    name = re.split(r"[.\[]", problem.where, maxsplit=1)[0]
    variable = name if name.startswith(PREFIX) else f"{PREFIX}{name.upper()}"
    return problem._replace(where=variable + problem.where.removeprefix(name))


def _construct(
    configured: Callable[..., T],
    known: type[Any],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    folder: Path,
    place: Callable[[Problem], Problem],
) -> T:
    """Read the settings, construct, and report the problems of both together."""
    problems = Problems()
    reader = Reader(problems, import_object=import_object, dereference=_Dereference(folder))
    fields = settings_of(known)
    if isinstance(settings, _Environment):
        arguments = _from_variables(settings, fields, reader)
    else:
        arguments = reader.fields(as_mapping(settings) or {}, fields)
    for name in sorted(set(arguments) & set(options)):
        problems.add(name, "The setting is given in the code too.", "Keep one of the two.")
    short = [name for name in SHORTHAND if name in arguments]
    several = {"protected_resources", f"{PREFIX}PROTECTED_RESOURCES"} & set(settings)
    if short and several:
        what = f"The file also has {', '.join(short)}."
        problems.add("protected_resources", what, "Write either protected_resources or the shorthand.")
        arguments = {name: value for name, value in arguments.items() if name not in SHORTHAND}
    arguments |= options
    try:
        if several:
            made = configured(**{"protected_resources": (), **arguments})
        else:
            made = from_shorthand(configured, arguments)
    except ConfigurationError as error:
        found = [*problems.found, *(late for late in error.problems if not _told_already(late, reader.unreadable))]
        raise ConfigurationError(map(place, found)) from None
    problems.found = list(map(place, problems.found))
    problems.raise_if_any()
    return made


def _from_variables(variables: Mapping[str, str], fields: Mapping[str, Field], reader: Reader) -> dict[str, Any]:
    known = {f"{PREFIX}{name.upper()}": field for name, field in fields.items()}
    arguments: dict[str, Any] = {}
    for variable, text in variables.items():
        field = known.get(variable)
        if field is None:
            reader.problems.add(variable, "Unknown variable.", known_or_not(variable, known))
        elif not text.strip():
            reader.problems.add(variable, "It is empty.", "Unset it, or give it a value.")
            reader.unreadable.add(field.name)
        else:
            before = len(reader.unreadable)
            value = reader.text(text, field.shapes, field.name)
            if len(reader.unreadable) == before:
                arguments[field.name] = value
    return arguments


def _told_already(problem: Problem, places: set[str]) -> bool:
    """Whether a problem follows from one that was told: it is at, above or below a place that has no value."""
    where = problem.where
    return where in places or any(
        inner.startswith(outer) and inner[len(outer)] in ".["
        for place in places
        for outer, inner in ((where, place), (place, where))
        if len(inner) > len(outer)
    )


class _Dereference:
    """What `from_env` and `from_file` stand for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, kind: str, name: str) -> str:
        if kind == "from_file":
            return _read(self._folder / name).rstrip("\r\n")
        text = os.environ.get(name)
        if text is None:
            raise UnusableError(f"The environment variable {show(name)} is not set.", "Set it.")
        return text


def _read(file: Path) -> str:
    """A text file. Raises `UnusableError`, without a word of its content."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UnusableError(f"{show(str(file))} is larger than 1 MiB.", "It is hardly the right file.")
        return data.decode("utf-8")
    except OSError as error:
        raise UnusableError(f"{show(str(file))} cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise UnusableError(f"{show(str(file))} is not UTF-8.", "Save it as UTF-8.") from error
