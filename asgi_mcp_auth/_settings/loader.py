"""Construction of `MCPAuth` from a mapping, a TOML file or the environment; the settings have the same names in each.

A file names hooks by import strings, so its author decides what code is imported. A configuration file must therefore
be trusted like the program itself.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from asgi_mcp_auth._policy.problems import Problems, as_mapping, show
from asgi_mcp_auth._settings.reader import Field, Reader, UnusableError, shapes_of, suggest
from asgi_mcp_auth._settings.shorthand import SHORTHAND, from_shorthand
from asgi_mcp_auth._settings.toml_lines import line_of, statement_lines
from asgi_mcp_auth.errors import ConfigurationError, Problem
from asgi_mcp_auth.stores._redis_address import is_redis_url
from asgi_mcp_auth.stores.redis import RedisStore

__all__ = (
    "from_env",
    "from_mapping",
    "from_toml",
    "import_object",
    "settings_of",
)

NAME = r"[^\W\d]\w*"
_IMPORT_STRING = re.compile(rf"(?P<module>{NAME}(?:\.{NAME})*):(?P<attribute>{NAME}(?:\.{NAME})*)(?P<call>\(\))?")


def import_object(text: str) -> object:
    """Return the object that an import string names; with `()`, call it without arguments and return the result.

    Raises:
        UnusableError: The string has another form, or there is no such module or attribute. An exception that the
            module or the factory raises itself passes through with its traceback.
    """
    match = _IMPORT_STRING.fullmatch(text)
    if match is None:
        fix = "Write 'module:attribute' or 'module:factory()'."
        raise UnusableError(f"{show(text)} is not an import string.", fix)
    module = match["module"]
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module and not module.startswith(missing + "."):
            raise  # the named module exists; a module that it imports is missing
        fix = "Fix the name, or add the module's folder to the import path (PYTHONPATH, or the server's option)."
        raise UnusableError(f"{show(text)}: there is no module {show(missing)}.", fix) from error
    for name in match["attribute"].split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            what = f"{show(text)}: {module} has no attribute {show(match['attribute'])}."
            raise UnusableError(what, "Fix the name after the colon.") from error
    if match["call"] is None:
        return found
    if not callable(found):
        raise UnusableError(f"{show(text)}: the object cannot be called.", "Remove the parentheses.")
    return found()


def object_of(text: str) -> object:
    """Return the store at the URL of a database, or the object that an import string names; see `import_object`."""
    if not is_redis_url(text):
        return import_object(text)
    try:
        return RedisStore(text)
    except ValueError as error:  # the message does not show the URL
        raise UnusableError(f"{error}.", "Fix the URL, or install the extra.") from None


T = TypeVar("T")

PREFIX = "MCP_AUTH_"
MAX_FILE_BYTES = 1024 * 1024


def settings_of(settings: type[object]) -> dict[str, Field]:
    """Return every setting of a configuration file by name, as a `TypedDict` of `Option` declares them."""
    return {
        name: Field(name, shapes_of(hint.__origin__), False, hint.__metadata__[0].default, hint.__metadata__[0].meaning)
        for name, hint in settings.__annotations__.items()
    }


def from_mapping(
    configured: Callable[..., T], known: type[object], settings: Mapping[str, object], options: Mapping[str, object]
) -> T:
    """Construct from plain values; see `MCPAuth.from_mapping`. `known` declares the settings."""
    return _construct(configured, known, settings, options, folder=Path(), locate=lambda problem: problem)


def from_toml(
    configured: Callable[..., T], known: type[object], path: str | os.PathLike[str], options: Mapping[str, object]
) -> T:
    """Construct from a TOML file; see `MCPAuth.from_toml`."""
    file = Path(path)
    try:
        text = _read(file)
        settings = tomllib.loads(text)
    except UnusableError as error:
        raise ConfigurationError([Problem(str(file), error.what, error.fix)]) from error
    except tomllib.TOMLDecodeError as error:
        what = f"The file is not valid TOML: {error}."
        raise ConfigurationError([Problem(str(file), what, "Fix the syntax there.")]) from error
    lines = functools.cache(lambda: statement_lines(text))

    def locate(problem: Problem) -> Problem:
        line = line_of(lines(), problem.where)
        return problem._replace(where=f"{file}{'' if line is None else f':{line}'}: {problem.where}")

    return _construct(configured, known, settings, options, folder=file.parent, locate=locate)


def from_env(
    configured: Callable[..., T], known: type[object], environ: Mapping[str, str] | None, options: Mapping[str, object]
) -> T:
    """Construct from the environment; see `MCPAuth.from_env`."""
    environ = os.environ if environ is None else environ
    given = {name: text for name, text in environ.items() if name.startswith(PREFIX)}
    path = given.pop(f"{PREFIX}CONFIG", None)
    if path is None and not given and not options:
        fix = f"Set {PREFIX}RESOURCE and {PREFIX}AUTHORIZATION_SERVERS, or {PREFIX}CONFIG to the path of a TOML file."
        raise ConfigurationError([Problem("environment", f"No {PREFIX}… variable is set.", fix)])
    if path is None:
        return _construct(configured, known, _Environment(given), options, folder=Path(), locate=_at_variable)
    if given:
        what = f"{', '.join(sorted(given))} would be ignored: the file is the only source of settings."
        fix = f'Unset them, or unset {PREFIX}CONFIG; the file can refer to a variable with {{from_env = "NAME"}}.'
        raise ConfigurationError([Problem(f"{PREFIX}CONFIG", what, fix)])
    return from_toml(configured, known, path, options)


class _Environment(dict[str, str]):
    """The text of each `MCP_AUTH_…` variable, by the variable's name."""


def _at_variable(problem: Problem) -> Problem:
    """Return the problem with the environment variable of the setting as its location."""
    name = re.split(r"[.\[]", problem.where, maxsplit=1)[0]
    variable = name if name.startswith(PREFIX) else f"{PREFIX}{name.upper()}"
    return problem._replace(where=variable + problem.where.removeprefix(name))


def _construct(
    configured: Callable[..., T],
    known: type[object],
    settings: Mapping[str, object],
    options: Mapping[str, object],
    *,
    folder: Path,
    locate: Callable[[Problem], Problem],
) -> T:
    """Read the settings and construct the object.

    Args:
        configured: The class to construct.
        known: The `TypedDict` that declares the settings.
        settings: The values as they are written.
        options: The options that the caller passes in code.
        folder: The folder that `from_file` is relative to.
        locate: Replaces the `where` of a problem with the location for the user: file and line, or variable.

    Raises:
        ConfigurationError: All problems of reading and of constructing.
    """
    problems = Problems()
    reader = Reader(problems, import_object=object_of, dereference=functools.partial(_dereference, folder))
    fields = settings_of(known)
    if isinstance(settings, _Environment):
        arguments = _from_variables(settings, fields, reader)
    else:
        arguments = reader.fields(as_mapping(settings) or {}, fields)
    for name in sorted(set(arguments) & set(options)):
        problems.add(name, "The setting is also passed in code.", f"Remove {name} from one of the two.")
    short = [name for name in SHORTHAND if name in arguments]
    several = {"protected_resources", f"{PREFIX}PROTECTED_RESOURCES"} & set(settings)
    if short and several:
        what = f"{', '.join(short)} and protected_resources are both set."
        fix = "Set either protected_resources or the settings for a single resource."
        problems.add("protected_resources", what, fix)
        arguments = {name: value for name, value in arguments.items() if name not in SHORTHAND}
    arguments |= options
    try:
        if several:
            made = configured(**{"protected_resources": (), **arguments})
        else:
            made = from_shorthand(configured, arguments)
    except ConfigurationError as error:
        new = [problem for problem in error.problems if not _is_consequence(problem, reader.unreadable)]
        raise ConfigurationError(map(locate, [*problems.found, *new])) from None
    problems.found = list(map(locate, problems.found))
    problems.raise_if_any()
    return made


def _from_variables(variables: Mapping[str, str], fields: Mapping[str, Field], reader: Reader) -> dict[str, object]:
    known = {f"{PREFIX}{name.upper()}": field for name, field in fields.items()}
    arguments: dict[str, object] = {}
    for variable, text in variables.items():
        field = known.get(variable)
        if field is None:
            reader.problems.add(variable, "Unknown variable.", suggest(variable, known))
        elif not text.strip():
            reader.problems.add(variable, "The variable is empty.", "Set it to a value, or unset it.")
            reader.unreadable.add(field.name)
        else:
            before = len(reader.unreadable)
            value = reader.text(text, field.shapes, field.name)
            if len(reader.unreadable) == before:
                arguments[field.name] = value
    return arguments


def _is_consequence(problem: Problem, unreadable: set[str]) -> bool:
    """Return whether a problem follows from a reported one: its path equals, contains or lies in an unreadable path."""
    where = problem.where
    return where in unreadable or any(
        inner.startswith(outer) and inner[len(outer)] in ".["
        for path in unreadable
        for outer, inner in ((where, path), (path, where))
        if len(inner) > len(outer)
    )


def _dereference(folder: Path, kind: str, name: str) -> str:
    """Return the text that `from_env` or `from_file` refers to; files are relative to the folder."""
    if kind == "from_file":
        return _read(folder / name).rstrip("\r\n")
    text = os.environ.get(name)
    if text is None:
        raise UnusableError(f"The environment variable {show(name)} is not set.", f"Set {name}.")
    return text


def _read(file: Path) -> str:
    """Return the content of a text file.

    Raises:
        UnusableError: The file cannot be used. The message contains nothing of its content, which may be a secret.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UnusableError(f"{show(str(file))} is larger than 1 MiB.", "Set the path of the right file.")
        return data.decode("utf-8")
    except OSError as error:
        raise UnusableError(
            f"{show(str(file))} cannot be read: {error.strerror}.", "Fix the path or the file's permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise UnusableError(f"{show(str(file))} is not UTF-8.", "Save it as UTF-8.") from error
