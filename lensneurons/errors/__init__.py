"""The errors of the package: each says what was given, what is allowed, and what to do.

All of them are a ``ValueError``, so ``except ValueError`` around a call is enough; the subclass
says what is at fault: the model, the corpus, a file. The command line turns any of them into one
line and exit code 2. Each class has a page in this folder with its usual situations: the message,
its cause, its fix. ``error.page`` is the path of that page, and needs no network:

>>> from lensneurons.errors import ModelError
>>> ModelError("no such model").page.name
'ModelError.md'
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

# Characters of a message. The longest that the package writes itself, ten problems of a corpus, has
# 3,000; what is longer quotes somebody's data.
LONGEST = 10_000


class Explained:
    """An error or a warning that has a page in this folder."""

    @property
    def page(self) -> Path:
        """Path of the page of this class: its usual messages, their causes and their fixes."""
        return Path(__file__).parent / f"{type(self).__name__}.md"


class LensNeuronsError(Explained, ValueError):
    """Bad input to lensneurons, found before any forward pass wherever that is possible.

    A message is at most `LONGEST` characters: of a longer one the middle is left out.
    """

    def __init__(self, *told: object) -> None:
        super().__init__(*(_bounded(one) if isinstance(one, str) else one for one in told))


class ModelError(LensNeuronsError):
    """A model that cannot be loaded, has no dense MLP neurons, or has hooks in the wrong place."""


class CorpusError(LensNeuronsError):
    """A corpus that cannot be read or encoded as asked."""


class ProvenanceError(LensNeuronsError):
    """Two results that do not come from the same model, tokenizer, scope or corpus."""


class StorageError(LensNeuronsError):
    """A file or folder that is missing, damaged, in use, or of another kind or version."""


class StorageWarning(Explained, UserWarning):
    """A damaged file that could be done without."""


class ControlWarning(Explained, UserWarning):
    """Random neurons that are not as active as those that they stand in for."""


class EmptySetWarning(Explained, UserWarning):
    """Sets of neurons that are empty, or so small that nothing follows from them."""


class MemoryWarning(Explained, UserWarning):
    """A batch that did not fit into memory and was run in parts; nothing was lost."""


class PublishedCountsError(StorageError):
    """Published activation counts that contradict themselves."""


class IdentificationError(LensNeuronsError):
    """Neurons that cannot be identified with the given rates, lambda or statistics."""


def choose(given: str, allowed: Iterable[str], what: str) -> str:
    """Return `given` if it is one of `allowed`; otherwise raise an error that lists the choices.

    Args:
        given: the value to check.
        allowed: the valid choices, listed in the message in this order.
        what: the name of the option, as the user knows it.

    Raises:
        LensNeuronsError: `given` is not allowed; the message suggests the closest choice.
    """
    choices = list(allowed)
    if isinstance(given, str) and given in choices:
        return str(given)
    close = get_close_matches(given, choices, n=1) if isinstance(given, str) else []
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise LensNeuronsError(f"{what}={shown(given)} is not known; choose one of {choices}.{hint}")


def shown(value: object, most: int = 60) -> str:
    """The ``repr`` of any value in at most `most` characters, for a message.

    A value of any size costs no more than a short one, as far as text and bytes are concerned; a
    value whose ``repr`` fails (nested too deeply, an integer of 5,000 digits) is named by its type.
    """
    if isinstance(value, str | bytes) and len(value) > most:
        value = value[:most]
        return f"{value!r:.{most - 3}}..."
    try:
        told = repr(value)
    except Exception:  # noqa: BLE001 - anybody's __repr__
        return f"<{type(value).__name__}>"
    return told if len(told) <= most else f"{told[: most - 3]}..."


def _bounded(message: str) -> str:
    cut = len(message) - LONGEST
    if cut <= 0:
        return message
    half = LONGEST // 2 - 40
    return f"{message[:half]} [... {cut + 80} characters left out ...] {message[-half:]}"
