"""The errors of the package: every one says what was given, what is allowed, and what to do.

All of them are ``ValueError``s, so ``except ValueError`` around a call is enough; the subclasses
say which room refused. The command line turns any of them into one line and exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LensNeuronsError(ValueError):
    """Bad input to lensneurons, found before any forward pass wherever that is possible."""


class ModelError(LensNeuronsError):
    """A model that cannot be loaded, or has no dense MLP neurons, or whose hooks are not right."""


class CorpusError(LensNeuronsError):
    """A corpus that cannot be read or encoded as asked."""


class ProvenanceError(LensNeuronsError):
    """Two results that do not come from the same model, tokenizer, scope or corpus."""


class StorageError(LensNeuronsError):
    """A file that is missing, damaged, or of another kind or version."""


class PublishedCountsError(StorageError):
    """Published activation counts that contradict themselves."""


class IdentificationError(LensNeuronsError):
    """Neurons that cannot be identified with the given rates, lambda or statistics."""


def choose(given: str, allowed: Iterable[str], what: str) -> str:
    """Return `given` where it is one of `allowed`, else raise an error that lists the choices.

    Args:
        given: the value to check.
        allowed: the valid choices, listed in the message in this order.
        what: the name of the option, as the user knows it.

    Raises:
        LensNeuronsError: `given` is not allowed; the closest choice is suggested.
    """
    choices = list(allowed)
    if given in choices:
        return given
    close = get_close_matches(str(given), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise LensNeuronsError(f"{what}={given!r} is not known; choose one of {choices}.{hint}")
