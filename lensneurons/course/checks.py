"""The checks of the exercises: each tells a right answer from wrong ones, and says what to look at.

A check never gives the answer away; the solution is folded below the exercise. What it compares
with is computed from the values that the reader has, so other options give other right answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.method_agreement import MethodAgreement
from lensneurons.comparison.before_after import Comparison
from lensneurons.comparison.paper_claims import Claims
from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.course.replies import Reply, not_yet, right
from lensneurons.experiments.ablation_effects import AblationMatrix
from lensneurons.experiments.method_comparison import MethodComparison
from lensneurons.languages.detection import detect_language
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import LayerParts, divide_layers
from lensneurons.neurons.segments import best_segments
from lensneurons.neurons.sets import NeuronSet
from lensneurons.samples.sample import Sample
from lensneurons.uncertainty.groups import Interval

MISSING = "Replace `None` with a number."


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float | np.number) and not isinstance(given, bool)


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and all(map(_is_number, given))


# --- 1: first language neurons ---


def check_class_of(function: Callable[[int, int], str | None]) -> Reply:
    """Exercise 1.1: the class of a neuron that exceeds tau in n of k languages."""
    for k in (2, 3, 10):
        for n in range(k + 1):
            known = {0: "unclassified", 1: "specific", k: "agnostic"}.get(n, "related")
            given = function(n, k)
            if given != known:
                return not_yet(f"`class_of({n}, {k})` gives `{given!r}`. Read the table again.")
    return right("These are the four classes; every neuron has exactly one.")


def check_probability(
    given: Any, statistics: ActivationStatistics, layer: int, neuron: int, language: str
) -> Reply:
    """Exercise 1.2: the activation probability of a neuron in a language."""
    place = statistics.languages.index(language)
    active, tokens = statistics.counts[layer, neuron, place], statistics.tokens[place]
    if not _is_number(given):
        return not_yet(MISSING)
    if np.isclose(given, active / tokens):
        return right(f"{active} of {tokens} counted tokens.")
    if given == active:
        return not_yet("That is how often the neuron was active. Out of how many tokens?")
    if np.isclose(given, statistics.counts[layer, neuron].sum() / statistics.tokens.sum()):
        return not_yet("That is the share over all languages; take one.")
    return not_yet("Divide the active counted tokens of the language by its counted tokens.")


def check_shared(given: Any, neurons: LanguageNeurons) -> Reply:
    """Exercise 1.3: the neurons that German and French share, but not English."""
    if not isinstance(given, NeuronSet):
        return not_yet("Give a set of neurons, such as `neurons['de']`, not its size.")
    if given == (neurons["de"] & neurons["fr"]) - neurons["en"]:
        return right(f"{len(given)} neurons.")
    if not given <= neurons["de"] or not given <= neurons["fr"]:
        return not_yet("Some of these are not of both languages: `&` is the intersection.")
    if len(given & neurons["en"]):
        return not_yet("Some of these are of English as well: `-` takes a set away.")
    return not_yet("All of these are right, but some are missing.")


# --- 2: identification, step by step ---


def check_counts(given: Any, model: Any, one: ParallelCorpus, pre: np.ndarray[Any, Any]) -> Reply:
    """Exercise 2.1: on how many response tokens of one text every neuron is active.

    Args:
        given: the answer, [layer, neuron].
        model: a TransformerLens model.
        one: a corpus of one text.
        pre: its activations before the non-linearity, [layer, position, neuron].
    """
    if given is None or isinstance(given, type(...)):
        return not_yet("Replace `None` with the counts.")
    given, known = np.asarray(given), collect(model, one, progress=False).counts[..., 0]
    if given.shape != known.shape:
        return not_yet(f"The shape is {given.shape}; [layer, neuron] is {known.shape}.")
    if np.array_equal(given, known):
        return right("Your counts are those of `collect`, neuron by neuron.")
    if np.array_equal(given, (pre > 0).sum(1)):
        return not_yet("You counted the prompt as well: take the positions in `response`.")
    return not_yet(f"{np.mean(given == known):.0%} of the neurons are right. Active is above 0.")


def check_bar(given: Any, statistics: ActivationStatistics) -> Reply:
    """Exercise 2.2: a bar at which about the most neurons are language-specific."""

    def specific(bar: float) -> int:
        return int(((statistics.probability > bar).sum(-1) == 1).sum())

    if not _is_number(given):
        return not_yet(MISSING)
    most = max(map(specific, np.arange(0, 1, 0.01)))
    there = specific(float(given))
    if there < 0.99 * most:
        return not_yet(f"At {given:g}, {there:,} neurons are; at another bar more are.")
    return right(f"At {given:g}, {there:,} neurons are specific to a language.")


def check_entropy(function: Callable[[np.ndarray[Any, Any]], Any]) -> Reply:
    """Exercise 2.3: the entropy of one neuron over the languages."""
    for row in ([0.5, 0.5], [0.2, 0.2, 0.2, 0.2], [0.6, 0.3, 0.1], [0.03, 0.01], [0.4, 0.0, 0.2]):
        p = np.array(row)
        share = p[p > 0] / p.sum()
        known = -(share * np.log(share)).sum() / np.log(len(p))
        given = function(p)
        if not _is_number(given):
            return not_yet(f"`entropy({row})` gives `{given!r}`; it should be a number.")
        if not np.isclose(given, known, atol=1e-6):
            if np.isclose(given, known * np.log(len(p)), atol=1e-6):
                return not_yet("Divide by ln K, so that 1 is the largest value for any K.")
            raw = -(p[p > 0] * np.log(p[p > 0])).sum() / np.log(len(p))
            if p.sum() != 1 and np.isclose(given, raw, atol=1e-6):
                return not_yet("Divide p by its sum first: p is no distribution over languages.")
            return not_yet(f"`entropy({row})` gives {given:.4f}, but is {known:.4f}.")
    return right("0 for a neuron of one language, 1 for one that all languages use alike.")


def check_lambda(given: Any, statistics: ActivationStatistics, top_rate: float) -> Reply:
    """Exercise 2.4: the largest lambda that selects no agnostic neuron, to within .001."""
    if not _is_number(given):
        return not_yet(MISSING)
    selected = identify(statistics, top_rate=top_rate, lambda_=float(given)).histogram()[-1]
    if selected:
        return not_yet(f"At {given:.4f}, {selected} agnostic neurons are selected.")
    exact = identify(statistics, top_rate=top_rate)
    largest = exact.lambda_ or 0.0  # the paper's score has one always
    if exact.lambda_origin == "exact" and given < largest - 0.001:
        return not_yet(f"At {given:.4f} there are none, but a larger value has none either.")
    found = largest if exact.lambda_floor is None else exact.lambda_floor
    return right(f"`identify` finds {found:.6f} ({exact.lambda_origin}, rounded down).")


# --- 3: the four parts ---


def check_parts(given: Any, parts: LayerParts) -> Reply:
    """Exercise 3.1: which of the four parts are there, missing or undecided."""
    known = dict.fromkeys((1, 2, 3, 4), "missing")
    known |= dict.fromkeys(parts.undecided, "undecided")
    known |= {part.number: "there" for part in parts.parts}
    if not isinstance(given, dict) or set(given) != set(known) or None in given.values():
        return not_yet("Give one of the three words for each of the parts 1 to 4.")
    wrong = [number for number, verdict in known.items() if given[number] != verdict]
    if not wrong:
        return right("And that is the result: nobody has to make more of it.")
    if hidden := [number for number in wrong if known[number] == "undecided"]:
        return not_yet(f"Part {hidden[0]}: look at its interval. Does it leave out one answer?")
    return not_yet(f"Look at part {wrong[0]} again.")


def check_last_part(
    function: Callable[[np.ndarray[Any, Any]], Any], profile: np.ndarray[Any, Any]
) -> Reply:
    """Exercise 3.2: the first layer after the late peak of the specific neurons of a profile."""
    made = np.array([[9, 4, 1], [2, 2, 5], [3, 2, 5], [8, 5, 1], [7, 6, 2], [6, 8, 3]])
    for name, counts in (("the paper's model", profile), ("a made-up profile of 6 layers", made)):
        half = len(counts) // 2
        known = half + int(counts[half:, 0].argmax()) + 1
        given = function(counts)
        if given is None:
            return not_yet("The function gives `None`.")
        if given == known - 1:
            return not_yet(f"On {name}, layer {given} is the peak itself; part 4 is what follows.")
        if given != known:
            return not_yet(f"On {name} it gives {given}. Look at the late half of column 0 only.")
    return right("Part 4 begins after the late peak of the specific neurons.")


def check_two_segments(
    given: Any, features: np.ndarray[Any, Any], cost: Callable[[int], float]
) -> Reply:
    """Exercise 3.3: the first layer of the second of two segments, by least squares.

    Args:
        given: the answer.
        features: [layer, class], what the segments are fitted to.
        cost: squares that a split leaves.
    """
    known = best_segments(features, 2)[0][1]
    if not isinstance(given, int | np.integer):
        return not_yet("Give the first layer of the second segment, a whole number.")
    if given == known:
        return right(f"Layers 0 to {known - 1}, and {known} to {len(features) - 1}.")
    if given == known - 1:
        return not_yet("That is the last layer of the first segment; give the first of the second.")
    if not 0 < given < len(features):
        return not_yet("One of the segments would be empty.")
    return not_yet(
        f"Splitting at {given} leaves {cost(int(given)):.2f}, and there is a better split."
    )


def check_broken(given: Any, profile: np.ndarray[Any, Any]) -> Reply:
    """Exercise 3.4: agnostic counts with which they are not maximal in part 4."""
    if not isinstance(given, np.ndarray) or given.shape != profile.shape:
        return not_yet("Give a changed copy of the profile, of the same shape.")
    if not np.array_equal(given[:, :2], profile[:, :2]) or (given < 0).any():
        return not_yet("Change the agnostic counts (column 2) alone, and none below zero.")
    tested = divide_layers(given)
    if tested.found:
        return not_yet("The four parts are still found.")
    claims = [criterion.claim for criterion in tested.failed]
    if any("maximal in part 4" in claim for claim in claims):
        return right(f"Not found any more; fails: {'; '.join(claims)}.")
    return not_yet(f"Something else fails: {'; '.join(claims)}.")


# --- 4: ablation, patching and steering ---


def check_control(given: Any, chosen: NeuronSet, neurons: LanguageNeurons, language: str) -> Reply:
    """Exercise 4.1: a random set of the same layers, as active in the language."""
    if not isinstance(given, NeuronSet):
        return not_yet("Give one set of neurons; `random_control` returns a list of them.")
    if not np.array_equal(given.per_layer(), chosen.per_layer()):
        return not_yet("It should have as many neurons in every layer as `chosen`.")
    if len(given & chosen):
        return not_yet("It shares neurons with `chosen`.")
    activity = neurons.probability[:, :, neurons.languages.index(language)]
    ours, theirs = activity[given.mask()].mean(), activity[chosen.mask()].mean()
    told = f"active on {ours:.3f} of the tokens of {language}, and `chosen` on {theirs:.3f}"
    if abs(ours / theirs - 1) > 0.1:
        return not_yet(f"It is {told}: match it.")
    return right(f"As many in every layer; {told}.")


def check_selectivity(given: Any, effects: AblationMatrix) -> Reply:
    """Exercise 4.2: the effect on the own language less the mean effect on the others, by row."""
    cells, known = effects.cells(), effects.selectivity().estimate
    if given is None:
        return not_yet("Replace `None` with one number a row.")
    given = np.asarray(given, float)
    if given.shape != known.shape:
        return not_yet(f"Give one number a row; your shape is {given.shape}.")
    if np.allclose(given, known):
        return right("These are the numbers of `effects.selectivity()`.")
    if np.allclose(given, cells.diagonal() - cells.mean(1)):
        return not_yet("The mean of the others must not hold the diagonal: leave it out.")
    if np.allclose(given, -known):
        return not_yet("It is the other way round: own effect less that of the others.")
    return not_yet("Rows are removed languages, columns evaluated ones. Subtract within each row.")


def check_turn(given: Any, answer: Interval) -> Reply:
    """Exercise 4.3: the first layer after which the source's result has more than half."""
    shares = answer.estimate[:, 0]
    known = int(np.argmax(shares > 0.5))
    if not isinstance(given, int | np.integer):
        return not_yet("Give the number of a layer.")
    if given == known:
        return right("Up to the layer before, the target's own result has the larger share.")
    if not 0 <= given < len(shares):
        return not_yet(f"The layers are 0 to {len(shares) - 1}.")
    return not_yet(f"After layer {given} the share is {shares[given]:.2f}.")


def check_head(given: Any, patterns: Sequence[np.ndarray[Any, Any]]) -> Reply:
    """Exercise 4.4: the head that looks most at position 0.

    Args:
        given: (layer, head).
        patterns: of each text, [layer, head, position, looked at].
    """
    shares = np.mean([one[:, :, 1:, 0].mean(-1) for one in patterns], axis=0)
    known = divmod(int(shares.argmax()), shares.shape[1])
    if not _is_pair(given):
        return not_yet("Give two whole numbers: the layer, and the head in it.")
    layer, head = map(int, given)
    if (layer, head) == known:
        return right(f"Head {head} of layer {layer} gives it {shares[layer, head]:.0%}.")
    if (head, layer) == known:
        return not_yet("The layer comes first, then the head.")
    if not (0 <= layer < shares.shape[0] and 0 <= head < shares.shape[1]):
        return not_yet(
            f"There are layers 0 to {len(shares) - 1}, heads 0 to {shares.shape[1] - 1}."
        )
    return not_yet(f"That head gives position 0 {shares[layer, head]:.0%}; another gives it more.")


def check_switched(given: Any, sample: Sample) -> Reply:
    """Exercise 4.5: how many texts are in the language steered toward, own set and random one."""
    languages = sample.statistics.languages
    known = [0, 0]
    for one in sample.steered:
        toward = one.edit.removeprefix("steered toward ").partition(",")[0]
        for place, row in enumerate(one.rows[1:]):
            known[place] += detect_language(row.text, languages=languages).language == toward
    if not _is_pair(given):
        return not_yet("Give two numbers: of the language's own neurons, and of random ones.")
    if tuple(given) == tuple(known):
        own, random = known
        return right(f"{own} of {len(sample.steered)}, beside {random} with random neurons.")
    if given[0] == known[0]:
        return not_yet("The first is right. Look at the column of random neurons again.")
    return not_yet("Count the texts of the column that are in the language of their row.")


# --- 5: before and after alignment ---


def check_shares(given: Any, change: Comparison, after: ActivationStatistics) -> Reply:
    """Exercise 5.1: the share of probabilities above the shared bar, and above the own one."""
    p = after.probability
    own_bar = np.sort(p.ravel())[round(0.95 * p.size) - 1]
    shared, own = np.mean(p > change.tau), np.mean(p > own_bar)
    if not _is_pair(given):
        return not_yet("Give two numbers: the share above the shared bar, and above the own one.")
    if np.allclose(given, (shared, own), atol=1e-6):
        return right(f"Above the own bar it is {own:.4f}, whatever the alignment did.")
    if np.allclose(given, (own, shared), atol=1e-6):
        return not_yet("These are the right numbers in the wrong order.")
    if np.isclose(given[0], shared, atol=1e-6):
        return not_yet("The first is right. The own bar is the 95th percentile of `after` itself.")
    return not_yet("Take the mean of `after.probability > bar`.")


def check_gained(given: Any, change: Comparison) -> Reply:
    """Exercise 5.2: how many neurons gained languages, and how many lost some."""
    moved = change.transitions
    gained, lost = np.triu(moved, 1).sum(), np.tril(moved, -1).sum()
    if not _is_pair(given):
        return not_yet("Give two numbers: how many gained languages, and how many lost some.")
    if tuple(given) == (gained, lost):
        return right(f"{gained} gained and {lost} lost languages.")
    if tuple(given) == (lost, gained):
        return not_yet("Rows are N before, columns N after: a gain lies right of the diagonal.")
    if given[0] == np.triu(moved).sum():
        return not_yet("The diagonal holds the neurons whose N stayed: leave it out (`k=1`).")
    return not_yet("Sum what lies right of the diagonal, and what lies left of it.")


def check_held(given: Any, tested: Claims) -> Reply:
    """Exercise 5.3: how many claims hold, and how many were decided."""
    verdicts = [claim.verdict for claim in tested]
    held, decided = verdicts.count("holds"), len(verdicts) - verdicts.count("undecided")
    if not _is_pair(given):
        return not_yet("Give two numbers: how many hold, and how many were decided at all.")
    if tuple(given) == (held, decided):
        return right(f"{held} of {decided} decided claims hold; {len(verdicts)} were tested.")
    if given[0] != held:
        return not_yet('Count the claims whose `verdict` is `"holds"`.')
    return not_yet('Decided are those that hold and those that do not: not `"undecided"`.')


# --- 6: your own model ---


def check_agreement(given: Any, pre: np.ndarray[Any, Any], post: np.ndarray[Any, Any]) -> Reply:
    """Exercise 6.1: of the entries with ``pre > 0``, the share with ``post > 0``."""
    active = pre > 0
    known = (post[active] > 0).mean()
    if not _is_number(given):
        return not_yet("Replace `None` with a share.")
    if np.isclose(given, known):
        return right(f"{known:.2f}: `hook_post` is another statistic, not the one that is counted.")
    if np.isclose(given, ((post > 0) == active).mean()):
        return not_yet("That is over all entries. Take only those where `pre > 0`.")
    if np.isclose(given, (post > 0).mean()):
        return not_yet("Divide by the number of active entries, not by all of them.")
    return not_yet("Take the entries of `post` where `pre > 0`: which share is above 0?")


def check_count_bytes(
    function: Callable[[int, int, int, int], Any], statistics: ActivationStatistics
) -> Reply:
    """Exercise 6.2: the bytes of the counts of layers, width, languages and groups."""
    known = statistics.grouped_counts
    groups, layers, width, languages = known.shape
    given = function(layers, width, languages, groups)
    if given == known.nbytes:
        mistral = function(32, 14336, 10, 10)
        return right(f"For Mistral-7B, ten languages and ten groups: {mistral / 1e6:.0f} MB.")
    if given == known.size:
        return not_yet("That is the number of counts; an int64 takes 8 bytes.")
    if given == known[0].nbytes:
        return not_yet("Every group of items keeps counts of its own.")
    return not_yet(f"It gives `{given!r}` for these statistics, not {known.nbytes:,}.")


def check_corpus(given: Any, model: Any) -> Reply:
    """Exercise 6.3: three items in two languages or more, each a prompt and a response."""
    if not isinstance(given, ParallelCorpus):
        return not_yet("Make a corpus: `ln.load_corpus({...})`.")
    if len(given.languages) < 2:
        return not_yet("One language cannot be told apart from others: give two or more.")
    if len(given.ids) < 3:
        return not_yet(f"It has {len(given.ids)} items a language; give three.")
    if not given.is_parallel:
        return not_yet("A language lacks an item that another has.")
    if not all(item.prompt and item.response for item in given):
        return not_yet("Give (prompt, response) pairs: only the response is counted.")
    counted = collect(model, given, groups=1, progress=False)
    return right(f"{counted!r}")


# --- 7: methods compared ---


def check_average_precision(
    function: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], Any],
) -> Reply:
    """Exercise 7.1: the average precision of one neuron, without ties."""
    random = np.random.default_rng(7)
    for n, share in ((4, 2), (10, 3), (30, 10)):
        values, own = random.normal(size=n), np.arange(n) < share
        given, known = function(values, own), _precision(values, own)
        if not _is_number(given):
            return not_yet(f"The function gives `{given!r}`; it should be a number.")
        if np.isclose(given, known):
            continue
        if np.isclose(given, _precision(-values, own)):
            return not_yet("Begin with the largest value, not with the smallest.")
        ranked = own[np.argsort(-values)]
        if np.isclose(given, (ranked.cumsum() / np.arange(1, n + 1)).mean()):
            return not_yet("Take the mean over the own texts alone, not over all.")
        return not_yet(f"Of {n} texts, {share} of them own, it gives {given:.4f}, not {known:.4f}.")
    return right("A neuron that tells the language perfectly has 1, whatever else it does.")


def _precision(values: np.ndarray[Any, Any], own: np.ndarray[Any, Any]) -> float:
    """The mean, over the own texts, of the share of own texts that stand no later."""
    above = [own[values >= value].mean() for value in values[own]]
    return float(np.mean(above))


def check_best_method(given: Any, compared: MethodComparison) -> Reply:
    """Exercise 7.2: the most selective method beyond controls, and whether it is clear of 0."""
    table = compared.to_pandas()
    rows = table[table["figure"] == "selectivity beyond control"].set_index("method")
    if not isinstance(given, tuple) or len(given) != 2 or given[0] not in rows.index:
        return not_yet(f"Give a pair; the first is the name of one of {list(rows.index)}.")
    if not isinstance(given[1], bool | np.bool_):
        return not_yet("The second is True or False: does the interval leave out 0?")
    name = rows["estimate"].idxmax()
    low, high = (float(rows.loc[name, end]) for end in ("low", "high"))  # pyright: ignore[reportArgumentType]
    if given[0] != name:
        return not_yet("Another method has a larger estimate. Look at the last figure alone.")
    if bool(given[1]) != (low > 0 or high < 0):
        return not_yet(f"The interval is {low:.3f} to {high:.3f}. Is 0 inside?")
    return right(
        f"{name}: {rows.loc[name, 'estimate']:.3f} ({low:.3f} to {high:.3f}) nats a token."
    )


def check_rank_agreement(
    given: Any, agreement: MethodAgreement, method: str, language: str
) -> Reply:
    """Exercise 7.3: Spearman's correlation of a measure's size with the size of the effects."""
    if not _is_number(given):
        return not_yet(MISSING)
    k = agreement.languages.index(language)
    value = agreement.value[agreement.methods.index(method)][:, k]
    effect = agreement.effect[:, k]
    sizes = np.abs(value), np.abs(effect)
    known = _spearman(*sizes)
    if np.isclose(given, known):
        return right(f"{known:.2f}: 1 would sort the neurons as their removal does.")
    if np.isclose(given, np.corrcoef(*sizes)[0, 1]):
        return not_yet("That is Pearson's correlation of the numbers; take their ranks.")
    if np.isclose(abs(given), abs(_spearman(value, effect))):
        return not_yet("That is with signs. Take the size, `np.abs`, of both.")
    return not_yet(f"Is it about {language} alone, column {k} of both?")


def _spearman(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
