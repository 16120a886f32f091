"""The same texts in Latin letters, to tell what a model knows of a script from what of a language.

Texts of languages with another script are romanised by the library *uroman* (Hermjakob, May and
Knight 2018, "Out-of-the-box Universal Romanization Tool uroman"): ``মিনি`` becomes ``mini``. Texts
of languages in Latin letters stay as they are, byte for byte, accents too: they are the controls.

>>> latin = ln.corpora.romanise(corpus)                                    # doctest: +SKIP
>>> after = ln.collect(model, latin)                                       # doctest: +SKIP
>>> ln.comparison.script_control(neurons, before, after)                   # doctest: +SKIP

What this does not show: how people romanise. Tones and some vowels are lost, Chinese characters
are read one by one and as Chinese, in Japanese too, and number words may become digits. A model
has seen little of such text, so it also knows less of what it means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError
from lensneurons.languages.codes import alpha3, scripts


def romanise(corpus: ParallelCorpus) -> ParallelCorpus:
    """Write the prompts and responses of a corpus in Latin letters.

    Args:
        corpus: the texts; ids, languages and order stay as they are.

    Returns:
        A corpus of the same items. Its name says that it is romanised.

    Raises:
        LensNeuronsError: uroman is not installed.
    """
    to_latin = _romaniser()
    items = tuple(
        item
        if scripts(item.language) <= {"Latn"}
        else replace(
            item,
            prompt=to_latin(item.prompt, alpha3(item.language)),
            response=to_latin(item.response, alpha3(item.language)),
        )
        for item in corpus.items
    )
    return replace(corpus, name=f"{corpus.name}, romanised", items=items)


@cache  # it reads its tables for seconds
def _romaniser() -> Callable[[str, str], str]:
    """A function from a text and its ISO 639-3 code to its romanisation."""
    try:
        from uroman import Uroman
    except ImportError:
        raise LensNeuronsError(
            "romanising texts needs uroman: pip install 'lensneurons[romanise]'"
        ) from None
    romaniser: Any = Uroman()
    return lambda text, code: romaniser.romanize_string(text, lcode=code) if text else text
