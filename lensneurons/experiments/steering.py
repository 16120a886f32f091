"""From one language into another by steering: how strong, how often, at what price.

`lensneurons.interventions.editing.steer` pushes neurons toward their mean in a language. This runs
a corpus at several strengths and looks at three things at once, because each alone misleads:

    language   share of written texts in the language steered toward (`language_identification`)
    answers    share of texts with the right last number, in whatever language (`numerals`)
    price      NLL of given responses: the original language's, the target's, and the target's
               after prompts of the original one

At alpha 0 ``"add"`` and ``"difference"`` leave the model as it is (``"replace"`` ablates the
neurons). Prompts hold a model in their language, so switching usually needs the neurons of that
language ablated at the same time: `also_ablate`. They are ablated first; where the two sets share
neurons, steering starts from 0 there, and alpha 0 is the model without them.

>>> curve = ln.steering_curve(                                           # doctest: +SKIP
...     model, corpus, neurons["zh"], statistics=statistics,
...     toward="zh", prompts_in="en", also_ablate=neurons["en"],
... )
>>> curve.to_pandas()                                                    # doctest: +SKIP

What this does not show: that these neurons are the switch. Run it again with
`NeuronSet.random_control` of the same neurons: what a control does as well is a matter of strength,
not of language.

What steering does and what it costs, by strength: the value that `steering_curve` gives.

For every strength alpha there are texts that the model wrote, and three kinds of texts that it was
only asked to predict:

    ``own``        prompts of the original language with their own responses: what is given up
    ``switched``   the same prompts with the responses of the language steered toward: what is
                   gained, measured without generating
    ``target``     prompts and responses of the language steered toward: what is broken there

A strength at which texts turn to the other language while ``own`` and ``target`` have become
unlikely alike is not steering but damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.answers import wilson_interval
from lensneurons.evaluation.generation import Decoding, write_responses
from lensneurons.evaluation.likelihood import CorpusNLL, nll
from lensneurons.evaluation.numbers import last_number, same_number
from lensneurons.interventions.editing import SteeringMethod, ablate, require_fit, steer
from lensneurons.languages.detection import (
    detect_language,
    names_in,
    require_identifiable,
)
from lensneurons.models.forward import has_hooks
from lensneurons.models.sites import neuron_site
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet
from lensneurons.shapes import RightAnswers, SteeredNLL, SteeredTokens
from lensneurons.tokens.prepared import PreparedCorpus, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance
from lensneurons.values.tables import html_table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


TextKind = Literal["own", "switched", "target"]
KINDS: tuple[str, ...] = get_args(TextKind)
KIND = "steering curve"


@dataclass(frozen=True, eq=False, repr=False)
class SteeringCurve:
    """Language, answers and predictions of a model that is steered more and more; immutable.

    Attributes:
        alphas: strengths, in means of the language steered toward.
        toward: the language steered toward.
        prompts_in: the language of the prompts.
        texts: what the model wrote, [alpha][item].
        guesses: language of each text, [alpha][item]; None where it is undetermined.
        right: bool [alpha, item], whether its last number is the item's answer.
        nll: float64 [alpha, kind, item], NLL of the response in nats; `KINDS` gives the kinds.
        tokens: int64 [kind, item], counted tokens.
        item_ids: the items.
        method: how it was steered.
        neurons: label of the neurons steered, and how many they are.
        ablated: label of the neurons that were ablated at the same time; None for none.
        provenance: model and corpus.
    """

    alphas: tuple[float, ...]
    toward: str
    prompts_in: str
    texts: tuple[tuple[str, ...], ...]
    guesses: tuple[tuple[str | None, ...], ...]
    right: RightAnswers
    nll: SteeredNLL
    tokens: SteeredTokens
    item_ids: tuple[str, ...]
    method: str
    neurons: str
    ablated: str | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def share_in(self, language: str | None, *, level: float = 0.95) -> Interval:
        """Share of texts in a language, [alpha], with Wilson's interval.

        Args:
            language: its tag; None for undetermined.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        spoken = [[guess == language for guess in row] for row in self.guesses]
        return _wilson(np.array(spoken), level)

    def share_right(self, *, level: float = 0.95) -> Interval:
        """Share of right answers in whatever language, [alpha], with Wilson's interval.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        return _wilson(self.right, level)

    def share_right_toward(self, *, level: float = 0.95) -> Interval:
        """Share of right answers in the language steered toward, [alpha], with Wilson's interval.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        spoken = [[guess == self.toward for guess in row] for row in self.guesses]
        return _wilson(self.right & np.array(spoken), level)

    def mean_nll(
        self, kind: TextKind, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean NLL of one kind of texts, [alpha] in nats a token, with a bootstrap over items.

        Raises:
            LensNeuronsError: the kind is not known, or fewer than two items.
        """
        place = KINDS.index(choose(kind, KINDS, "kind"))
        return self._bootstrap(self.nll[:, place], place, draws, level, seed)

    def nll_difference(
        self, kind: TextKind, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Change of the mean NLL since alpha 0, [alpha] in nats a token, paired by item.

        Raises:
            LensNeuronsError: the kind is not known, there is no alpha 0, or fewer than two items.
        """
        place = KINDS.index(choose(kind, KINDS, "kind"))
        if 0 not in self.alphas:
            raise LensNeuronsError(f"a change needs alpha 0; alphas are {list(self.alphas)}")
        before = self.nll[self.alphas.index(0), place]
        return self._bootstrap(self.nll[:, place] - before, place, draws, level, seed)

    def _bootstrap(
        self, values: np.ndarray, place: int, draws: int, level: float, seed: int
    ) -> Interval:
        one = np.zeros(len(self.item_ids), np.int64)
        found = item_bootstrap(
            self.item_ids, one, values, self.tokens[place], draws=draws, level=level, seed=seed
        )
        ends = (found.estimate[:, 0], found.low[:, 0], found.high[:, 0])
        return Interval(*ends, found.level, found.method)

    def to_pandas(self) -> pd.DataFrame:
        """One row a strength: shares (0 to 1) and mean NLL (nats a token), each with its ends.

        Columns: alpha, then toward, own language, undetermined, right, right_toward and nll_own,
        nll_switched, nll_target, each with ``_low`` and ``_high``.
        """
        import pandas as pd

        found: dict[str, Interval] = {
            "toward": self.share_in(self.toward),
            "stayed": self.share_in(self.prompts_in),
            "undetermined": self.share_in(None),
            "right": self.share_right(),
            "right_toward": self.share_right_toward(),
        }
        for place, kind in enumerate(KINDS):
            found[f"nll_{kind}"] = self._bootstrap(self.nll[:, place], place, 1000, 0.95, 0)
        columns: dict[str, object] = {"alpha": self.alphas}
        for name, interval in found.items():
            columns |= {
                name: interval.estimate,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        return pd.DataFrame(columns)

    def texts_to_pandas(self) -> pd.DataFrame:
        """One row a strength and item: alpha, item, text, guess, right."""
        import pandas as pd

        rows = [
            (alpha, item, self.texts[a][i], self.guesses[a][i], bool(self.right[a, i]))
            for a, alpha in enumerate(self.alphas)
            for i, item in enumerate(self.item_ids)
        ]
        return pd.DataFrame(rows, columns=["alpha", "item", "text", "guess", "right"])

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, and return its path."""
        arrays = {name: getattr(self, name) for name in ("right", "nll", "tokens")}
        details = {name: getattr(self, name) for name in (*_LISTS, *_WORDS)}
        details["provenance"] = self.provenance.to_dict()
        return save_arrays(path, KIND, arrays, details)

    @classmethod
    def load(cls, path: str | Path) -> SteeringCurve:
        """Read what `save` wrote.

        Raises:
            StorageError: no such file, or a damaged, foreign or newer one.
        """
        arrays, details = load_arrays(path, KIND)
        lists = {name: tuple(details.pop(name)) for name in _LISTS}
        for name in ("texts", "guesses"):
            lists[name] = tuple(map(tuple, lists[name]))
        provenance = Provenance.from_dict(details.pop("provenance"))
        return cls(**arrays, **lists, **details, provenance=provenance)

    def __repr__(self) -> str:
        shares = self.share_in(self.toward).estimate
        told = ", ".join(f"{a:g}: {s:.0%}" for a, s in zip(self.alphas, shares, strict=True))
        return f"SteeringCurve({self.prompts_in} to {self.toward}, {self.method}; {told})"

    def _repr_html_(self) -> str:
        table = self.to_pandas()
        names = [name for name in table if f"{name}_low" in table]
        rows = [
            [
                row["alpha"],
                *(f"{row[n]:.2f} ({row[n + '_low']:.2f}-{row[n + '_high']:.2f})" for n in names),
            ]
            for row in table.to_dict("records")
        ]
        without = f", without {self.ablated}" if self.ablated else ""
        title = f"{self.prompts_in} to {self.toward}: {self.method} {self.neurons}{without}"
        return html_table(title, ("alpha", *names), rows)


_LISTS = ("alphas", "texts", "guesses", "item_ids")
_WORDS = ("toward", "prompts_in", "method", "neurons", "ablated")


def _wilson(found: RightAnswers, level: float) -> Interval:
    """Shares of true entries [alpha] with Wilson's intervals."""
    if not 0 < level < 1:
        raise LensNeuronsError(f"level={level}: coverage is a number between 0 and 1")
    ends = [wilson_interval(int(row.sum()), len(row), level=level) for row in found]
    low, high = np.array(ends, float).T
    return Interval(found.mean(axis=1), low, high, level, "wilson")


class _Texts(NamedTuple):
    """The three corpora that are predicted, in the order of `steering_curves.KINDS`."""

    own: ParallelCorpus
    switched: ParallelCorpus
    target: ParallelCorpus


def steering_curve(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    neurons: NeuronSet | LanguageNeurons,
    *,
    statistics: ActivationStatistics,
    toward: str,
    prompts_in: str,
    alphas: Sequence[float] = (0.0, 0.5, 1.0, 2.0),
    method: SteeringMethod = "add",
    also_ablate: NeuronSet | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> SteeringCurve:
    """Steer a model at several strengths, and measure language, answers and price.

    Args:
        model: a TransformerLens model; hooks that are on it act.
        corpus: parallel problems in at least two languages. Its languages are those that a written
            text is told apart by, so give it whole.
        neurons: what to steer; of the result of `identify` the neurons of `toward`.
        statistics: mean activations, by language.
        toward: the language to steer toward.
        prompts_in: the language of the prompts.
        alphas: strengths; 0 is what the others are compared with.
        method: ``"add"``, ``"replace"`` or ``"difference"`` (against `prompts_in`); see `steer`.
        also_ablate: neurons set to 0 at the same time, those of `prompts_in`, say.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing; the same noise at every strength.
        batch_tokens: most tokens in a batch.
        tokenizer: encodes the texts; by default the model's own, as it was saved.
        progress: whether to show progress bars.

    Returns:
        Texts, languages, right answers and NLL by strength. Texts of items without a number in
        their response are never right.

    Raises:
        LensNeuronsError: no neurons, neurons or statistics of another model, a strength that is not
            finite or given twice, or languages that are alike or cannot be told apart.
        CorpusError: a language that the corpus lacks, or no item that has both.
    """
    if isinstance(corpus, PreparedCorpus):
        tokenizer, corpus = tokenizer or corpus.tokenizer, corpus.corpus
    chosen = neurons if isinstance(neurons, NeuronSet) else neurons[toward]
    strengths = _require_strengths(alphas)
    _require_fit(model, chosen, also_ablate, statistics, (toward, prompts_in))
    require_identifiable(corpus.languages)
    texts = _make_texts(corpus, toward, prompts_in)
    prepared = [prepare(model, one, tokenizer=tokenizer) for one in texts]
    decoding = Decoding(max_new_tokens, temperature, seed, batch_tokens)
    interventions = "hooks" if has_hooks(model) else "none"

    @contextmanager
    def steered(alpha: float) -> Iterator[None]:
        away_from = prompts_in if method == "difference" else None
        how: dict[str, Any] = {"method": method, "alpha": alpha, "away_from": away_from}
        with ExitStack() as stack:
            if also_ablate is not None:
                stack.enter_context(ablate(model, also_ablate))
            stack.enter_context(steer(model, chosen, statistics, toward=toward, **how))
            yield

    runs = []
    for alpha in _with_progress(strengths, progress):
        with steered(alpha):
            runs.append(_run(model, prepared, decoding))
    first = runs[0].predicted[0]
    return SteeringCurve(
        alphas=strengths,
        toward=toward,
        prompts_in=prompts_in,
        texts=tuple(run.written for run in runs),
        guesses=tuple(_guess(run.written, texts.own, corpus.languages) for run in runs),
        right=np.array([_judge(run.written, texts.own) for run in runs]),
        nll=np.array([[_by_item(one.nll, one, first) for one in run.predicted] for run in runs]),
        tokens=np.array([_by_item(one.tokens, one, first) for one in runs[0].predicted]),
        item_ids=first.item_ids,
        method=method,
        neurons=_name(chosen),
        ablated=None if also_ablate is None else _name(also_ablate),
        provenance=replace(
            first.provenance, interventions=interventions, corpora=(corpus.fingerprint,)
        ),
    )


class _Run(NamedTuple):
    """What a model wrote, and how well it predicts each kind of texts."""

    written: tuple[str, ...]
    predicted: tuple[CorpusNLL, ...]


def _run(model: Any, texts: Sequence[PreparedCorpus], decoding: Decoding) -> _Run:
    """Write on from the prompts of the first corpus and predict all of them, with the model as it
    is.
    """
    own = texts[0]
    prompts = [item.prompt for item in own.corpus]
    written = write_responses(model, prompts, decoding, tokenizer=own.tokenizer, progress=False)
    predicted = tuple(nll(model, one, batch_tokens=decoding.batch_tokens) for one in texts)
    return _Run(tuple(response.text for response in written), predicted)


def _name(neurons: NeuronSet) -> str:
    return f"{neurons.label} ({len(neurons)} neurons)"


def _require_strengths(alphas: Sequence[float]) -> tuple[float, ...]:
    """The strengths, once it is plain that a curve can be drawn over them."""
    strengths = tuple(float(alpha) for alpha in alphas)
    if not strengths or len(set(strengths)) < len(strengths) or not np.isfinite(strengths).all():
        raise LensNeuronsError(f"alphas={list(alphas)}: give finite strengths, each once")
    return strengths


def _require_fit(
    model: Any,
    neurons: NeuronSet,
    also_ablate: NeuronSet | None,
    statistics: ActivationStatistics,
    languages: tuple[str, str],
) -> None:
    """Raise unless neurons, statistics and languages belong together."""
    site = neuron_site(model)
    require_fit(neurons, site)
    if not len(neurons):
        raise LensNeuronsError(f"{neurons.label} is empty: there is nothing to steer")
    if also_ablate is not None:
        require_fit(also_ablate, site)
    toward, prompts_in = languages
    choose(toward, statistics.languages, "toward")
    if toward == prompts_in:
        raise LensNeuronsError(f"toward={toward!r} is the language of the prompts: give another")


def _make_texts(corpus: ParallelCorpus, toward: str, prompts_in: str) -> _Texts:
    """The items of both languages, as they are and with responses of the one after the other."""
    both = corpus.select([prompts_in, toward])
    items = {(item.id, item.language): item for item in both}
    shared = [i for i in both.ids if (i, prompts_in) in items and (i, toward) in items]
    if not shared:
        raise CorpusError(f"no item of {corpus.name!r} is in both {prompts_in!r} and {toward!r}")
    own, target = (both.select([tag], shared) for tag in (prompts_in, toward))
    switched = (replace(items[i, toward], prompt=items[i, prompts_in].prompt) for i in shared)
    return _Texts(own, ParallelCorpus(f"{corpus.name}, switched", tuple(switched)), target)


def _guess(
    texts: Sequence[str], corpus: ParallelCorpus, languages: Sequence[str]
) -> tuple[str | None, ...]:
    """The language of each text; the names of its prompt are no evidence."""
    return tuple(
        detect_language(text, languages=languages, ignore=names_in(item.prompt)).language
        for text, item in zip(texts, corpus, strict=True)
    )


def _judge(texts: Sequence[str], corpus: ParallelCorpus) -> list[bool]:
    """Whether the last number of each text is that of the item's response."""
    pairs = zip(texts, corpus, strict=True)
    return [same_number(last_number(text), last_number(item.response)) for text, item in pairs]


def _by_item(values: np.ndarray, found: CorpusNLL, first: CorpusNLL) -> np.ndarray:
    """Values of texts in the order of the items of another result."""
    places = {item: place for place, item in enumerate(found.item_ids)}
    return values[[places[item] for item in first.item_ids]]


def _with_progress(alphas: Sequence[float], shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(alphas, desc="steer", unit="alpha", disable=not shown)
