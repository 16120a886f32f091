"""Accuracy: how often a model solves the problems of a corpus, and in the language it was asked in.

    prompt -> text -> the number that answers it, and its language -> three verdicts

    right_answer      the number that answers the text is that of the item's response
    right_language    the whole text is in the language of the item; undetermined is not
    both              one and the other

Answer and language are kept apart because they fail apart: a model without its Thai neurons may
still solve a problem, in English. The language is identified without numbers and without the names
of the prompt, among the languages of the corpus and a few large ones.

A text whose language cannot be told counts as wrong in ``right_language``, though it need not be.
That is a bias between languages: of runs of 40 characters 12 % of the English and 13 % of the
Spanish ones cannot be told, and no Chinese or Bengali one (`lensneurons.languages.detection`). So
``right_language_determined``, the share among the texts whose language could be told, stands beside
it, with the number of the others. Where the two differ, compare languages by the second; it is
biased too, if a model is wrong more often in the texts that cannot be told.

>>> result = ln.accuracy(model, corpus, max_new_tokens=128)              # doctest: +SKIP
>>> result.per_language()[["right_answer", "right_language", "both"]]    # doctest: +SKIP
>>> ln.evaluation.accuracy_difference(before, after)                                # doctest: +SKIP

**Intervals.** A share has Wilson's interval, the difference of two runs over the same items
Newcombe's (`lensneurons.uncertainty.paired`) and McNemar's exact test of the items that changed.
Over several languages, the mean difference has a bootstrap interval over items, drawn together
because they are the same in every language.

What it does not show: whether the reasoning holds, or why answers differ; a text may be right in
another way than before. A text that goes on after its answer (a base model that invents a next
problem) is judged by the number behind its marker (`lensneurons.evaluation.markers`), and without
one by its very last number: give `stop`. One that was cut at the limit of tokens might have got
there (`Answer.finished`). Numbers are read by the rules of the language that the text is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.corpora.items import Item
from lensneurons.engines.choice import Engine
from lensneurons.engines.pool import engine_for
from lensneurons.errors import CorpusError, LensNeuronsError, ModelError, choose
from lensneurons.evaluation.blocks import in_blocks
from lensneurons.evaluation.generation import (
    Decoding,
    Response,
    encode_prompts,
    fit_context,
    write_responses,
    write_rows,
)
from lensneurons.evaluation.numbers import last_number, same_number, stated_number
from lensneurons.evaluation.shots import fingerprint_of, prompts_of, refuse_chats
from lensneurons.evaluation.writers import (
    Writer,
    decoding_of,
    provenance_of,
    require_writer,
    written_by,
)
from lensneurons.evaluation.written_blocks import Writing, written_by_workers
from lensneurons.languages.codes import language_name
from lensneurons.languages.detection import (
    MINIMUM_CONFIDENCE,
    LanguageGuess,
    detect_language,
    names_in,
    require_identifiable,
)
from lensneurons.models.family import model_family
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import runs_model
from lensneurons.options import plain_options
from lensneurons.tokens.prepared import PreparedCorpus, model_provenance, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.paired import mean_change, paired_interval, wilson_interval
from lensneurons.values.base import Overview, Value
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

PROMPTS_A_BLOCK = 100  # of a small model on a processor, some minutes
VERDICTS = ("right_answer", "right_language", "both")
Identify = Callable[[str], LanguageGuess]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote for one item.

    Attributes:
        id: the item.
        language: the language that it was asked in.
        text: what the model wrote, whole.
        expected: the number that answers it.
        number: the number that answers the text (`last_number`); None where it has none.
        guess: the language that the text seems to be written in.
        finished: whether the text ended by itself, not at the limit of tokens.
    """

    id: str
    language: str
    text: str
    expected: float
    number: float | None
    guess: LanguageGuess
    finished: bool

    @property
    def right_answer(self) -> bool:
        """Whether the number is the expected one, within 0.01."""
        return same_number(self.number, self.expected)

    @property
    def right_language(self) -> bool:
        """Whether the text is in the language of its item; undetermined is not."""
        return self.guess.language == self.language

    @property
    def both(self) -> bool:
        """Right answer in the right language."""
        return self.right_answer and self.right_language


@dataclass(frozen=True, eq=False, repr=False)
class Accuracy(Value):
    """The answers of a model to a corpus. Made by `accuracy`.

    Attributes:
        answers: one an item, in the order of the corpus.
        decoding: how the texts were written.
        provenance: model, weights, corpus, and whether hooks (an ablation) were on the model.
    """

    FILE_KIND = "accuracy"
    RUN_FILE = "accuracy.safetensors"

    answers: tuple[Answer, ...]
    decoding: Decoding
    provenance: Provenance

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of the corpus."""
        return tuple(dict.fromkeys(answer.language for answer in self.answers))

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    @plain_options
    def per_language(self, *, level: float = 0.95) -> pd.DataFrame:
        """Shares of right answers and right languages, with Wilson's intervals.

        Args:
            level: coverage of the intervals.

        Returns:
            One row a language. Columns: items; for right_answer, right_language and both the share
            (0 to 1) of all items and its ``_low`` and ``_high`` ends, so a text whose language
            could not be told counts as wrong; for right_language_determined the same of the other
            texts alone (NaN where there are none); the number n_undetermined of texts whose
            language could not be told; the shares undetermined and unfinished (cut at the limit of
            tokens).

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        import pandas as pd

        if not 0 < level < 1:
            raise LensNeuronsError(f"level={level}: coverage is a number between 0 and 1")
        rows = []
        for language in self.languages:
            own = [answer for answer in self.answers if answer.language == language]
            row: dict[str, int | float] = {"items": len(own)}
            for name in VERDICTS:
                right = sum(getattr(answer, name) for answer in own)
                low, high = wilson_interval(right, len(own), level=level)
                row |= {name: right / len(own), f"{name}_low": low, f"{name}_high": high}
            told = [answer.right_language for answer in own if answer.guess.language is not None]
            ends = wilson_interval(sum(told), len(told), level=level) if told else (np.nan, np.nan)
            row["right_language_determined"] = sum(told) / len(told) if told else np.nan
            row["right_language_determined_low"], row["right_language_determined_high"] = ends
            row["n_undetermined"] = len(own) - len(told)
            row["undetermined"] = (len(own) - len(told)) / len(own)
            row["unfinished"] = sum(not answer.finished for answer in own) / len(own)
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index(self.languages, name="language", dtype=object))

    def to_pandas(self) -> pd.DataFrame:
        """One row an answer: id, language, text, expected, number, guess, confidence, script,
        finished, and the three verdicts.
        """
        import pandas as pd

        return pd.DataFrame(self._columns())

    def _columns(self) -> dict[str, Any]:
        numbers = [np.nan if answer.number is None else answer.number for answer in self]
        return {
            "id": [answer.id for answer in self],
            "language": [answer.language for answer in self],
            "text": [answer.text for answer in self],
            "expected": np.array([answer.expected for answer in self], np.float64),
            "number": np.array(numbers, np.float64),
            "guess": [answer.guess.language for answer in self],
            "confidence": np.array([answer.guess.confidence for answer in self], np.float64),
            "script": [answer.guess.script for answer in self],
            "finished": np.array([answer.finished for answer in self], bool),
            **{v: np.array([getattr(answer, v) for answer in self], bool) for v in VERDICTS},
        }

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The columns; verdicts are written too, for readers in other programs."""
        run = {"decoding": asdict(self.decoding), "provenance": self.provenance.to_dict()}
        columns = {**self._columns(), **run}
        arrays = {name: one for name, one in columns.items() if isinstance(one, np.ndarray)}
        return arrays, {name: one for name, one in columns.items() if name not in arrays}

    @classmethod
    def _unpack(cls, arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> Accuracy:
        columns = {**{name: array.tolist() for name, array in arrays.items()}, **details}
        guesses = map(LanguageGuess, *(columns[name] for name in ("guess", "confidence", "script")))
        numbers = [None if np.isnan(number) else number for number in columns["number"]]
        texts = (columns[name] for name in ("id", "language", "text", "expected"))
        rows = zip(*texts, numbers, guesses, columns["finished"], strict=True)
        decoding, provenance = Decoding(**details["decoding"]), details["provenance"]
        return cls(tuple(Answer(*row) for row in rows), decoding, Provenance.from_dict(provenance))

    def _brief(self) -> str:
        shares = {name: sum(getattr(answer, name) for answer in self) for name in VERDICTS}
        told = ", ".join(f"{n.replace('_', ' ')} {s / len(self):.1%}" for n, s in shares.items())
        return (
            f"{self.provenance.model}: {len(self)} answers in {len(self.languages)} languages: "
            f"{told}"
        )

    def _overview(self) -> Overview:
        def percent(row: Mapping[Any, Any], name: str) -> str:
            low, middle, high = (100 * row[name + end] for end in ("_low", "", "_high"))
            return "" if np.isnan(middle) else f"{middle:.0f} % ({low:.0f}-{high:.0f})"

        def cells(row: Mapping[Any, Any]) -> list[str]:
            of_told = percent(row, "right_language_determined")
            return [*(percent(row, v) for v in VERDICTS), str(int(row["n_undetermined"])), of_told]

        table = self.per_language()
        rows = [
            (tag, language_name(tag), int(row["items"]), *cells(row))
            for tag, row in zip(table.index, table.to_dict("records"), strict=True)
        ]
        head = ["language", "name", "items", *(name.replace("_", " ") for name in VERDICTS)]
        head += ["undetermined", "right language of the determined"]
        return Overview(repr(self), head, rows)


@plain_options
@runs_model
def accuracy(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 16384,
    stop: Sequence[str] = (),
    shots: ParallelCorpus | None = None,
    minimum_confidence: float = MINIMUM_CONFIDENCE,
    ignore: Sequence[str] = (),
    identify: Identify | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    run_dir: str | Path | None = None,
    writer: Writer | None = None,
    engine: Engine = "local",
    progress: bool = True,
) -> Accuracy:
    """Let a model answer every item of a corpus, and judge number and language apart.

    Args:
        model: what `load_model` returns, or any TransformerLens model. Hooks on it act.
        corpus: problems whose responses end with the number that answers them, prepared or not.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing; the same for two states of a model gives paired texts.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
        stop: a text is cut before the first of these strings that the model writes, and ends
            there.
        shots: worked examples, which stand before the prompts of their language.
        minimum_confidence: below it the language of a text is undetermined.
        ignore: words that say nothing about the language, beside the names of each prompt.
        identify: your own identification of languages, from a text to a `LanguageGuess` with tags
            spelt as in the corpus; `minimum_confidence` and `ignore` are then yours to apply.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.
        run_dir: a folder that keeps what is written, so that an interrupted call goes on there. It
            ends with ``accuracy.safetensors`` in it; the texts are judged anew by every call.
        writer: writes in place of the model, such as a vLLM server: a function from a list of
            prompts to the list of their texts (`lensneurons.evaluation.writers`). It decides
            tokens, temperature and seed itself.
        engine: ``"local"``, this process; ``"ray"`` or a `lensneurons.engines.RayEngine`, workers
            that write a block of prompts each. Their texts are those of this process with a
            `run_dir`; without one it makes fuller batches, which round otherwise.
        progress: show one progress bar, in texts.

    Returns:
        One answer an item, with per-language shares and intervals.

    Raises:
        CorpusError: an item without a number in its response, or without a prompt; `shots` without
            a language, with fewer in one, or with an item of the corpus.
        LensNeuronsError: an option out of its range, prompts too long, or a language that cannot be
            told from others of its script; a `writer` that gives something else than one text a
            prompt, or stands beside its own options or hooks; Ray is not installed, has too little
            room, or its workers died.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read; the model has
            hooks, and there are workers; or theirs is another one.
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, corpus or plan.
    """
    corpus, given = _texts(model, corpus, tokenizer)
    refuse_chats(corpus, shots)
    decoding = Decoding(
        max_new_tokens, temperature, seed, batch_tokens, stop, fingerprint_of(shots)
    )
    expected = [expected_number(item) for item in corpus]
    asks = [identify] * len(corpus) if identify else _asks(corpus, ignore, minimum_confidence)
    tokenizer = given or original_tokenizer(model)
    prompts = prompts_of(corpus.items, shots, tokenizer)
    provenance = model_provenance(model, tokenizer, corpus.fingerprint, corpus.template)
    if writer is None:
        fit_context(model, [len(row) for row in encode_prompts(prompts, tokenizer)], max_new_tokens)
    else:
        own = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        require_writer(writer, model, engine=engine, **own)
        decoding = decoding_of(writer, decoding)
        provenance = provenance_of(writer, provenance)
    workers = engine_for(engine, model)

    def write(first: int, block: Sequence[str]) -> list[Response]:
        if writer is not None:
            return written_by(writer, block, decoding)
        return write_responses(
            model, block, decoding, first_row=first, tokenizer=tokenizer, progress=False
        )

    def by_workers(missing: Sequence[int]) -> Iterator[tuple[int, list[Response]]]:
        if workers is not None:
            blocks = {first: prompts[first : first + size] for first in missing}
            yield from written_by_workers(workers, model, Writing(decoding, tokenizer), blocks)

    def judge(written: Sequence[Response]) -> Accuracy:
        answers = tuple(map(_judge, corpus, expected, written, asks))
        return Accuracy(answers, decoding, provenance)

    # Without a folder nothing can be lost, and one block makes the fullest batches.
    one_block = run_dir is None and workers is None
    size = len(prompts) if one_block else PROMPTS_A_BLOCK
    return in_blocks(
        prompts, write, Response, judge, size=size, run_dir=run_dir, provenance=provenance,
        plan=decoding.plan(), label="accuracy", progress=progress,
        perform=None if workers is None else by_workers,
    )  # fmt: skip


@plain_options
def answer_scorer(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    *,
    max_new_tokens: int | None = None,
    stop: Sequence[str] = (),
    shots: ParallelCorpus | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Callable[[Sequence[int]], list[bool]]:
    """Make the function that lets a model answer some items, greedily, one batch a call.

    Arguments are those of `accuracy`. The model is a ``TransformerBridge``; hooks that are on it
    when the function is called act.

    Returns:
        ``score(rows)``: whether each answer is right and in the right language. An item may be
        named several times, for rows under different conditions.

    Raises:
        CorpusError: as for `accuracy`.
        LensNeuronsError: prompts too long, or a language that cannot be told from others.
        ModelError: a model of TransformerLens 3.9, which writes prompts of one length only.
    """
    if model_family(model) == "hooked":
        raise ModelError("answers under several conditions need a TransformerBridge: load_model()")
    corpus, given = _texts(model, corpus, tokenizer)
    refuse_chats(corpus, shots)
    items = corpus.items
    expected = [expected_number(item) for item in items]
    asks = _asks(corpus, (), MINIMUM_CONFIDENCE)
    own = given or original_tokenizer(model)
    ids = encode_prompts(prompts_of(items, shots, own), own)
    most = fit_context(model, [len(row) for row in ids], max_new_tokens)
    decoding = Decoding(most, stop=stop)

    def score(rows: Sequence[int]) -> list[bool]:
        written = write_rows(model, own, [ids[row] for row in rows], list(rows), decoding)
        pairs = zip(rows, written, strict=True)
        return [_judge(items[i], expected[i], text, asks[i]).both for i, text in pairs]

    return score


def _texts(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[ParallelCorpus, PreTrainedTokenizerBase | None]:
    """The texts, and the tokenizer that a prepared corpus was encoded with."""
    if isinstance(corpus, PreparedCorpus):
        prepared = prepare(model, corpus, tokenizer=tokenizer)
        return prepared.corpus, prepared.tokenizer
    return corpus, tokenizer


def _asks(corpus: ParallelCorpus, ignore: Sequence[str], confidence: float) -> list[Identify]:
    """For each item the function that detects the language of a text."""
    require_identifiable(corpus.languages)
    asks = [
        partial(
            detect_language,
            languages=corpus.languages,
            ignore={*ignore, *names_in(item.prompt)},
            minimum_confidence=confidence,
        )
        for item in corpus
    ]
    asks[0]("")  # refuses a confidence that is none before any forward pass
    return asks


def _judge(item: Item, expected: float, response: Response, identify: Identify) -> Answer:
    guess = identify(response.text)
    number = last_number(response.text, language=guess.language or item.language)
    told = expected, number, guess, response.finished
    return Answer(item.id, item.language, response.text, *told)


def expected_number(item: Item) -> float:
    """The number that answers an item.

    Raises:
        CorpusError: its response has no number, or it has no prompt.
    """
    number = stated_number(item.response, language=item.language)
    if number is None or not item.prompt:
        lack = "number in its response" if item.prompt else "prompt"
        raise CorpusError(
            f"{item.id!r} ({item.language}) has no {lack}: accuracy needs problems with a prompt "
            "and a response that ends with the number that answers them"
        )
    return number


# Two runs over the same items


@plain_options
def accuracy_difference(
    before: Accuracy, after: Accuracy, *, verdict: str = "both", level: float = 0.95
) -> pd.DataFrame:
    """Difference of the shares of right answers, language by language.

    Args:
        before: answers of one model.
        after: answers of another, or under an intervention. Items that only one of them has are
            left out.
        verdict: ``"right_answer"``, ``"right_language"`` or ``"both"``.
        level: coverage of the intervals.

    Returns:
        One row a language of both. Columns: items; before, after and change (shares, 0 to 1); low
        and high of the change; p, McNemar's exact test.

    Raises:
        CorpusError: no item was asked in both.
        LensNeuronsError: an unknown verdict, or a level outside (0, 1).
    """
    import pandas as pd
    from scipy.stats import binomtest

    found = _paired(before, after, verdict)
    rows = {}
    for language in dict.fromkeys(language for language, _ in found):
        pairs = np.array([pair for (tag, _), pair in found.items() if tag == language], bool)
        was, is_ = pairs.T
        gained, lost = int((is_ & ~was).sum()), int((was & ~is_).sum())
        low, high = paired_interval(was, is_, level=level)
        p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        one, two = float(was.mean()), float(is_.mean())
        told = {"items": len(was), "before": one, "after": two, "change": two - one}
        rows[language] = {**told, "low": low, "high": high, "p": p}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def mean_difference(
    before: Accuracy,
    after: Accuracy,
    *,
    languages: Sequence[str] | None = None,
    verdict: str = "both",
    level: float = 0.95,
) -> Interval:
    """Difference of the share of right answers, averaged over languages.

    Args:
        before: answers of one model.
        after: answers of another to the same items.
        languages: which to average, such as those nobody trained; None for all.
        verdict: as in `accuracy_difference`.
        level: coverage.

    Returns:
        One number (arrays without dimensions) with its ends, -1 to 1.

    Raises:
        CorpusError: no item was asked in both, or a language is missing.
        LensNeuronsError: an unknown verdict, a level outside (0, 1), or fewer than two items.
    """
    import pandas as pd

    found = _paired(before, after, verdict)
    asked = list(dict.fromkeys(tag for tag, _ in found))
    wanted = asked if languages is None else list(languages)
    if missing := [tag for tag in wanted if tag not in asked]:
        raise CorpusError(f"no item was asked in {missing} before and after")
    change = pd.Series({key: float(two) - float(one) for key, (one, two) in found.items()})
    return mean_change(change.unstack(0)[wanted].dropna(how="all").to_numpy(), level=level)


def _paired(
    before: Accuracy, after: Accuracy, verdict: str
) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Language and item to whether it was right before, and after."""
    choose(verdict, VERDICTS, "verdict")
    first, second = (
        {(answer.language, answer.id): getattr(answer, verdict) for answer in one}
        for one in (before, after)
    )
    found = {key: (right, second[key]) for key, right in first.items() if key in second}
    if not found:
        raise CorpusError("no item was asked both before and after: give the same problems")
    return found
