"""What other packages, and the demo, add to this one: entry points, loaded when they are asked for.

A distribution adds a named corpus, or a way to find the answer in a text, in its pyproject.toml:

    [project.entry-points."lensneurons.corpora"]
    my-problems = "my_package.corpus:read"

The demo registers its own things in the same way, so nothing here knows the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

CORPORA = "lensneurons.corpora"
ANSWER_SPANS = "lensneurons.answer_spans"


def registered_names(group: str) -> list[str]:
    """Names that installed packages have registered in a group, sorted."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load_registered(group: str, name: str) -> Callable[..., Any] | None:
    """Import what is registered under a name, or return None where nothing is."""
    found = list(entry_points(group=group, name=name))
    return found[0].load() if found else None
