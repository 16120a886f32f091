"""From one language into another by steering: how strong, how often, at what price.

`lensneurons.interventions.neurons.steer` pushes neurons toward their mean in a language. This runs
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
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.corpora.parallel import ParallelCorpus
from lensneurons.errors import CorpusError, LensNeuronsError, choose
from lensneurons.evaluation.decoding import Decoding
from lensneurons.evaluation.likelihood import CorpusNLL, nll
from lensneurons.evaluation.numerals import last_number, same_number
from lensneurons.evaluation.responses import write_responses
from lensneurons.experiments.steering_curves import SteeringCurve
from lensneurons.identification.neuron_sets import NeuronSet
from lensneurons.identification.neurons import LanguageNeurons
from lensneurons.interventions.changes import require_fit
from lensneurons.interventions.neurons import SteeringMethod, ablate, steer
from lensneurons.language_identification import (
    identify_language,
    names_in,
    require_identifiable,
)
from lensneurons.models.forward import has_hooks
from lensneurons.models.sites import neuron_site

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _Texts(NamedTuple):
    """The three corpora that are predicted, in the order of `steering_curves.KINDS`."""

    own: ParallelCorpus
    switched: ParallelCorpus
    target: ParallelCorpus


def steering_curve(
    model: Any,
    corpus: ParallelCorpus,
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
    chosen = neurons if isinstance(neurons, NeuronSet) else neurons[toward]
    strengths = _require_strengths(alphas)
    _require_fit(model, chosen, also_ablate, statistics, (toward, prompts_in))
    require_identifiable(corpus.languages)
    texts = _make_texts(corpus, toward, prompts_in)
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
            runs.append(_run(model, texts, decoding, tokenizer))
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


def _run(
    model: Any, texts: _Texts, decoding: Decoding, tokenizer: PreTrainedTokenizerBase | None
) -> _Run:
    """Write and predict, with the model as it is."""
    prompts = [item.prompt for item in texts.own]
    written = write_responses(model, prompts, decoding, tokenizer=tokenizer, progress=False)
    shared: dict[str, Any] = {"batch_tokens": decoding.batch_tokens, "tokenizer": tokenizer}
    predicted = tuple(nll(model, one, **shared) for one in texts)
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
        identify_language(text, languages=languages, ignore=names_in(item.prompt)).language
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
