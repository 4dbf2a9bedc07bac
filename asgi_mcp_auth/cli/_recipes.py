"""The command `recipe`: complete files to copy, from the package's folder `recipes`.

The first line of a recipe, a docstring or a comment, says what the recipe is.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable

import click

from asgi_mcp_auth.cli._terminal import console, write

__all__ = ("print_recipe", "print_recipes", "recipe_names")


def _recipes() -> dict[str, Traversable]:
    folder = files("asgi_mcp_auth") / "recipes"
    listed = ((entry.name, entry) for entry in folder.iterdir() if entry.is_file() and entry.name != "README.md")
    return dict(sorted(listed, key=lambda named: named[0].lower()))


def recipe_names() -> list[str]:
    """Return the file names of all recipes."""
    return list(_recipes())


def print_recipes() -> int:
    """Print the file name and the subject of every recipe, and return the exit status."""
    recipes = _recipes()
    width = max(map(len, recipes)) + 2
    for name, entry in recipes.items():
        text = entry.read_text("utf-8")
        subject = json.loads(text)["title"] if name.endswith(".json") else text.partition("\n")[0].strip('"# ')
        write(console(), f"{name:{width}}{subject}", hanging=width)
    return 0


def print_recipe(name: str) -> int:
    """Print one recipe unchanged, and return the exit status; 2 if there is no such recipe."""
    recipes = _recipes()
    if name in recipes:
        click.echo(recipes[name].read_text("utf-8"), nl=False)
        return 0
    close = get_close_matches(name, recipes, 1, cutoff=0.5)
    hint = f"Did you mean {close[0]}?" if close else "Run 'asgi-mcp-auth recipe' for the list."
    write(console(stderr=True), f"asgi-mcp-auth recipe: there is no recipe {name!r}. {hint}", hanging=2)
    return 2
