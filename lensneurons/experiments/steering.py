"""From one language into another by steering: how strong, how often, at what cost.

`lensneurons.interventions.editing.steer` pushes neurons toward their mean in a language. This runs
a corpus at several strengths alpha and measures three things at once, because each alone misleads:

    language   share of written texts in the language steered toward (`lensneurons.languages`)
    answers    share of texts with the right last number, in whatever language
    cost       NLL of three kinds of given texts:
               ``own``       prompts and responses of the original language: what is given up
               ``switched``  the same prompts with the responses of the language steered toward:
                             what is gained, measured without generating
               ``target``    prompts and responses of the language steered toward: what is broken

A strength that turns texts to the other language while ``own`` and ``target`` have both become
unlikely is not steering but damage.

At alpha 0 ``"add"`` and ``"difference"`` leave the model as it is (``"replace"`` ablates the
neurons). Prompts hold a model in their language, so a switch usually needs the neurons of that
language ablated as well (`also_ablate`). They are ablated first: where the two sets share neurons,
steering starts from 0, and alpha 0 is the model without them.

>>> curve = ln.steering_curve(                                           # doctest: +SKIP
...     model, corpus, neurons["zh"], statistics=statistics,
...     toward="zh", prompts_in="en", also_ablate=neurons["en"],
... )
>>> curve.to_pandas()                                                    # doctest: +SKIP

What this does not show: that these neurons are the switch. Repeat the curve with
`NeuronSet.random_control` of the same neurons: what a control does as well is an effect of
strength, not of language.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.generation import Decoding, write_responses
from lensneurons.evaluation.likelihood import CorpusNLL, nll
from lensneurons.evaluation.numbers import last_number, same_number, stated_number
from lensneurons.interventions.editing import SteeringMethod, ablate, single_set, steer
from lensneurons.languages.detection import detect_language, names_in, require_identifiable
from lensneurons.models.running import runs_model
from lensneurons.models.sites import neuron_site
from lensneurons.models.views import has_hooks
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.sets import NeuronSet, OneSet, chosen_set
from lensneurons.options import each_number, plain_options
from lensneurons.tokens.prepared import PreparedCorpus, prepare
from lensneurons.uncertainty.groups import Interval
from lensneurons.uncertainty.items import item_bootstrap
from lensneurons.uncertainty.paired import wilson_interval
from lensneurons.values.base import Overview, Value
from lensneurons.values.progress import with_bar
from lensneurons.values.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

TextKind = Literal["own", "switched", "target"]
KINDS: tuple[str, ...] = get_args(TextKind)


@dataclass(frozen=True, eq=False, repr=False)
class SteeringCurve(Value):
    """Language, answers and predictions of a model by strength. Made by `steering_curve`.

    Attributes:
        alphas: strengths, in means of the language steered toward.
        toward: the language steered toward.
        prompts_in: the language of the prompts.
        texts: what the model wrote, [alpha][item].
        guesses: language of each text, [alpha][item]; None where it is undetermined.
        right: bool [alpha, item], whether the last number of a text is the item's answer.
        nll: float64 [alpha, kind, item], NLL of the response in nats; `KINDS` gives the kinds.
        tokens: int64 [kind, item], counted tokens.
        item_ids: the items.
        method: how the model was steered.
        neurons: label and number of the neurons that were steered.
        ablated: label and number of the neurons that were ablated at the same time; None for none.
        provenance: model and corpus.
    """

    FILE_KIND = "steering curve"
    AXES = {
        "right": ("alpha", "item"),
        "nll": ("alpha", "kind", "item"),
        "tokens": ("kind", "item"),
    }
    COORDINATES = {"alpha": "alphas", "kind": "kinds", "item": "item_ids"}

    alphas: tuple[float, ...]
    toward: str
    prompts_in: str
    texts: tuple[tuple[str, ...], ...]
    guesses: tuple[tuple[str | None, ...], ...]
    right: Bool[np.ndarray, "alpha item"]
    nll: Float64[np.ndarray, "alpha kind item"]
    tokens: Int64[np.ndarray, "kind item"]
    item_ids: tuple[str, ...]
    method: str
    neurons: str
    ablated: str | None = None
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of given texts: `KINDS`."""
        return KINDS

    @plain_options
    def share_in(self, language: str | None, *, level: float = 0.95) -> Interval:
        """Share of texts in a language, [alpha], with Wilson's interval.

        Args:
            language: its tag; None for undetermined.
            level: coverage.

        Raises:
            LensNeuronsError: a level outside (0, 1).
        """
        return _wilson(self._written_in(language), level)

    @plain_options
    def share_right(self, *, level: float = 0.95) -> Interval:
        """Share of right answers in whatever language, [alpha], with Wilson's interval."""
        return _wilson(self.right, level)

    @plain_options
    def share_right_toward(self, *, level: float = 0.95) -> Interval:
        """Share of right answers in the language steered toward, [alpha], as `share_right`."""
        return _wilson(self.right & self._written_in(self.toward), level)

    @plain_options
    def mean_nll(
        self, kind: TextKind, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean NLL of one kind of texts, [alpha] in nats a token, with a bootstrap over items.

        Raises:
            LensNeuronsError: the kind is not known, or fewer than two items.
        """
        return self._bootstrap(self.nll, kind, draws, level, seed)

    @plain_options
    def nll_difference(
        self, kind: TextKind, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Mean NLL less that at alpha 0, [alpha] in nats a token, paired by item.

        Raises:
            LensNeuronsError: the kind is not known, there is no alpha 0, or fewer than two items.
        """
        if 0 not in self.alphas:
            raise LensNeuronsError(f"a change needs alpha 0; alphas are {list(self.alphas)}")
        added = self.nll - self.nll[self.alphas.index(0)]
        return self._bootstrap(added, kind, draws, level, seed)

    def _written_in(self, language: str | None) -> np.ndarray:
        """Bool [alpha, item]: the texts in a language."""
        return np.array([[guess == language for guess in row] for row in self.guesses])

    def _bootstrap(
        self, values: np.ndarray, kind: TextKind, draws: int, level: float, seed: int
    ) -> Interval:
        """Mean [alpha] of values [alpha, kind, item] over the tokens of one kind of texts."""
        place, one = KINDS.index(choose(kind, KINDS, "kind")), np.zeros(len(self.item_ids), int)
        given = self.item_ids, one, values[:, place], self.tokens[place]
        found = item_bootstrap(*given, draws=draws, level=level, seed=seed)
        ends = (found.estimate[:, 0], found.low[:, 0], found.high[:, 0])
        return Interval(*ends, found.level, found.method)

    def to_pandas(self) -> pd.DataFrame:
        """One row a strength: shares (0 to 1) and mean NLL (nats a token), each with its ends.

        Columns: alpha; toward, stayed (in the language of the prompts), undetermined, right,
        right_toward, nll_own, nll_switched and nll_target, each with ``_low`` and ``_high``.
        """
        import pandas as pd

        columns: dict[str, object] = {"alpha": self.alphas}
        for name, found in self._columns().items():
            columns |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        return pd.DataFrame(columns)

    def _columns(self) -> dict[str, Interval]:
        """What is measured at each strength, by its name in the tables."""
        return {
            "toward": self.share_in(self.toward),
            "stayed": self.share_in(self.prompts_in),
            "undetermined": self.share_in(None),
            "right": self.share_right(),
            "right_toward": self.share_right_toward(),
            **{f"nll_{kind}": self.mean_nll(kind) for kind in get_args(TextKind)},
        }

    def texts_to_pandas(self) -> pd.DataFrame:
        """One row a strength and item: alpha, item, text, guess, right."""
        import pandas as pd

        rows = [
            (alpha, item, self.texts[a][i], self.guesses[a][i], bool(self.right[a, i]))
            for a, alpha in enumerate(self.alphas)
            for i, item in enumerate(self.item_ids)
        ]
        return pd.DataFrame(rows, columns=["alpha", "item", "text", "guess", "right"])

    def _brief(self) -> str:
        shares = self.share_in(self.toward).estimate
        told = ", ".join(f"{a:g}: {s:.0%}" for a, s in zip(self.alphas, shares, strict=True))
        return f"{self.prompts_in} to {self.toward}, {self.method}; {told}"

    def _overview(self) -> Overview:
        columns = self._columns()
        shown = [
            [f"{x:.2f} ({low:.2f}-{high:.2f})" for x, low, high in zip(*ends, strict=True)]
            for ends in ((one.estimate, one.low, one.high) for one in columns.values())
        ]
        without = f", without {self.ablated}" if self.ablated else ""
        title = f"{self.prompts_in} to {self.toward}: {self.method} {self.neurons}{without}"
        return Overview(title, ("alpha", *columns), zip(self.alphas, *shown, strict=True))


def _wilson(found: Bool[np.ndarray, "alpha item"], level: float) -> Interval:
    """Shares of true entries [alpha] with Wilson's intervals."""
    if not 0 < level < 1:
        raise LensNeuronsError(f"level={level}: coverage is a number between 0 and 1")
    ends = [wilson_interval(int(row.sum()), len(row), level=level) for row in found]
    low, high = np.array(ends, float).T
    return Interval(found.mean(axis=1), low, high, level, "wilson")


@plain_options
@runs_model
def steering_curve(
    model: Any,
    corpus: ParallelCorpus | PreparedCorpus,
    neurons: OneSet | LanguageNeurons,
    *,
    statistics: ActivationStatistics,
    toward: str,
    prompts_in: str,
    alphas: Sequence[float] = (0.0, 0.5, 1.0, 2.0),
    method: SteeringMethod = "add",
    also_ablate: OneSet | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 4096,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> SteeringCurve:
    """Steer a model at several strengths, and measure language, answers and cost.

    Args:
        model: a TransformerLens model; hooks that are on it act.
        corpus: parallel problems in at least two languages. Written texts are told apart by its
            languages, so give it whole.
        neurons: what to steer: a set, one or several names; of the result of `identify` the neurons
            of `toward`.
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
        tokenizer: encodes the texts; None for the model's own, as it was saved.
        progress: show a progress bar, in strengths.

    Returns:
        Texts, languages, right answers and NLL by strength. A text is never right where its item
        has no number in the response.

    Raises:
        LensNeuronsError: no neurons, neurons or statistics of another model, a strength that is not
            finite or given twice, or languages that are alike or cannot be told apart.
        CorpusError: a language that the corpus lacks, or no item that has both.

    Warns:
        EmptySetWarning: there are no neurons in `also_ablate`.
    """
    if isinstance(corpus, PreparedCorpus):
        tokenizer, corpus = tokenizer or corpus.tokenizer, corpus.corpus
    site = neuron_site(model)
    chosen = neurons[toward] if isinstance(neurons, LanguageNeurons) else neurons
    chosen = chosen_set(chosen, site.n_layers, site.d_mlp)
    strengths = each_number("alphas", alphas)
    if not len(chosen):
        raise LensNeuronsError(
            f"{chosen.label} is empty: there is nothing to steer; identify(score='lape') or a "
            "greater top_rate gives a language more neurons"
        )
    removed = None if also_ablate is None else single_set(also_ablate, site)
    choose(toward, statistics.languages, "toward")
    choose(prompts_in, corpus.languages, "prompts_in")
    if toward == prompts_in:
        raise LensNeuronsError(f"toward={toward!r} is the language of the prompts: give another")
    require_identifiable(corpus.languages)
    given_texts = _given_texts(corpus, toward, prompts_in)
    prepared = [prepare(model, texts, tokenizer=tokenizer) for texts in given_texts]
    decoding = Decoding(max_new_tokens, temperature, seed, batch_tokens)
    away_from = prompts_in if method == "difference" else None
    options: dict[str, Any] = {"toward": toward, "method": method, "away_from": away_from}
    interventions = "hooks" if has_hooks(model) else "none"
    items, own = given_texts[0].items, prepared[0].tokenizer
    prompts = [item.prompt for item in items]
    written, guesses, right, given = [], [], [], []
    for alpha in with_bar(strengths, "steer", "alpha", shown=progress):
        with (
            ablate(model, removed) if removed else nullcontext(),
            steer(model, chosen, statistics, alpha=alpha, **options),
        ):
            said = write_responses(model, prompts, decoding, tokenizer=own, progress=False)
            given.append([nll(model, texts, batch_tokens=batch_tokens) for texts in prepared])
        written.append(tuple(one.text for one in said))
        answers = list(zip(written[-1], items, strict=True))
        guesses.append([
            detect_language(text, languages=corpus.languages, ignore=names_in(item.prompt)).language
            for text, item in answers  # the names of a prompt are no evidence of the language
        ])  # fmt: skip
        right.append([
            same_number(
                last_number(text, language=guess or item.language),
                stated_number(item.response, language=item.language),
            )
            for guess, (text, item) in zip(guesses[-1], answers, strict=True)
        ])  # fmt: skip
    first = given[0][0]
    return SteeringCurve(
        alphas=strengths,
        toward=toward,
        prompts_in=prompts_in,
        texts=tuple(written),
        guesses=tuple(map(tuple, guesses)),
        right=np.array(right),
        nll=np.array([[_by_item(one.nll, one, first) for one in row] for row in given]),
        tokens=np.array([_by_item(one.tokens, one, first) for one in given[0]]),
        item_ids=first.item_ids,
        method=method,
        neurons=_name(chosen),
        ablated=None if removed is None else _name(removed),
        provenance=replace(
            first.provenance, interventions=interventions, corpora=(corpus.fingerprint,)
        ),
    )


def _name(neurons: NeuronSet) -> str:
    return f"{neurons.label} ({len(neurons)} neurons)"


def _given_texts(corpus: ParallelCorpus, toward: str, prompts_in: str) -> list[ParallelCorpus]:
    """The texts of each kind of `KINDS`, over the items that are in both languages."""
    both = corpus.select([prompts_in, toward])
    items = {(item.id, item.language): item for item in both}
    shared = [i for i in both.ids if (i, prompts_in) in items and (i, toward) in items]
    if not shared:
        raise CorpusError(f"no item of {corpus.name!r} is in both {prompts_in!r} and {toward!r}")
    own, target = (both.select([tag], shared) for tag in (prompts_in, toward))
    switched = (replace(items[i, toward], prompt=items[i, prompts_in].prompt) for i in shared)
    name = f"{corpus.name}, switched"
    return [own, ParallelCorpus(name, tuple(switched), corpus.template), target]


def _by_item(values: np.ndarray, found: CorpusNLL, first: CorpusNLL) -> np.ndarray:
    """Values of texts in the order of the items of another result."""
    places = {item: place for place, item in enumerate(found.item_ids)}
    return values[[places[item] for item in first.item_ids]]
