"""Overlap of two runs: counted by hand, and against what dealing the neurons anew gives."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from functools import partial, reduce
from itertools import combinations, permutations
from operator import or_

import numpy as np
import pytest
from real_data import real_data

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.overlap import Stability, compare_halves, stability
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.published import read_published_counts
from lensneurons.values.files import load_arrays
from lensneurons.values.provenance import Provenance

LANGUAGES = ("en", "zh", "th")
MODELS = (Provenance(model="one<b>"), Provenance(model="two"))


def neurons_of(members, languages=LANGUAGES, selected=None, model=MODELS[0]) -> LanguageNeurons:
    """Neurons whose languages are given: bool [layer, neuron, language]."""
    members = np.asarray(members, bool)
    score = np.zeros(members.shape[:2])
    chosen = score == 0 if selected is None else selected
    options = (0.5, "given", 0.1, "given", "paper", 0.5)
    p = members * 0.8 + 0.1
    return LanguageNeurons(tuple(languages), p, score, chosen, *options, provenance=model)


def one_layer(*owners: str) -> list[list[bool]]:
    """The languages of each neuron, as initials: "ez" is active in en and zh."""
    return [[language[0] in owner for language in LANGUAGES] for owner in owners]


# Two layers of five neurons. "ezt" is language-agnostic, "" active in nothing.
FIRST = [one_layer("e", "ez", "z", "ezt", ""), one_layer("e", "e", "zt", "", "t")]
SECOND = [one_layer("e", "z", "z", "z", ""), one_layer("", "et", "zt", "z", "e")]
A, B = neurons_of(FIRST), neurons_of(SECOND, model=MODELS[1])


@pytest.fixture
def compared() -> Stability:
    return stability(A, B)


def test_sizes_measures_and_chance_by_hand(compared):
    """By chance, layer by layer: neurons of the first times neurons of the second, of five."""
    assert compared.rows == ("en", "zh", "th", "any language", "neuron-language pairs")
    first, second, shared = [4, 3, 2, 7, 9], [3, 5, 2, 8, 10], [2, 3, 1, 6, 6]
    sizes = (compared.first, compared.second, compared.shared)
    assert [one.tolist() for one in sizes] == [first, second, shared]
    measures = {
        "containment": [2 / 4, 3 / 3, 1 / 2, 6 / 7, 6 / 9],
        "containment_second": [2 / 3, 3 / 5, 1 / 2, 6 / 8, 6 / 10],
        "jaccard": [2 / 5, 3 / 5, 1 / 3, 6 / 9, 6 / 13],
        "dice": [4 / 7, 6 / 8, 2 / 4, 12 / 15, 12 / 19],
    }
    assert {name: compared.overlap(name).tolist() for name in measures} == measures
    expected = np.array([2 * 1 + 2 * 2, 2 * 3 + 1 * 2, 0 * 0 + 2 * 2, 3 * 4 + 4 * 4, 18]) / 5
    assert compared.expected == pytest.approx(expected)
    assert compared.by_chance("containment") == pytest.approx(np.divide(expected, first))
    assert compared.by_chance("jaccard")[0] == pytest.approx(1.2 / (4 + 3 - 1.2))
    assert compared.by_chance("dice")[3] == pytest.approx(2 * 5.6 / 15)
    table = compared.to_pandas()
    assert list(table.index) == list(compared.rows)
    names = [name + end for name in measures for end in ("", "_chance")]
    assert list(table) == ["first", "second", "shared", "expected", "deviation", "z", *names]
    assert table.loc["zh", "jaccard"] == 3 / 5
    assert table["z"].tolist() == pytest.approx((shared - compared.expected) / compared.deviation)


def test_chance_is_every_way_to_deal_one_layer():
    """All 5! ways to deal the second run's neurons, each with its languages."""
    first = np.array(one_layer("e", "ez", "zt", "ez", "t"))
    second = np.array(one_layer("ez", "z", "zt", "", "ez"))
    found = stability(neurons_of(first[None]), neurons_of(second[None]))
    dealt = []
    for order in permutations(range(5)):
        shared = first & second[list(order)]
        both = first.any(1) & second[list(order)].any(1)
        dealt.append([*shared.sum(0), both.sum(), shared.sum()])
    assert found.expected == pytest.approx(np.mean(dealt, axis=0))
    assert found.deviation == pytest.approx(np.std(dealt, axis=0))
    assert found.deviation[-1] > np.sqrt(np.square(found.deviation[:3]).sum())  # they go together


def test_the_deviation_of_sets_is_the_hypergeometric_one():
    from scipy.stats import hypergeom

    random = np.random.default_rng(2)
    first, second = (random.random((3, 40, 2)) < share for share in (0.3, [[[0.1, 0.5]]]))
    found = stability(neurons_of(first, "ab"), neurons_of(second, "ab"))
    alone = [members & (members.sum(-1, keepdims=True) == 1) for members in (first, second)]
    for k in range(2):
        pairs = [members[..., k].sum(1) for members in alone]
        assert found.expected[k] == pytest.approx(hypergeom.mean(40, *pairs).sum())
        assert found.deviation[k] == pytest.approx(np.sqrt(hypergeom.var(40, *pairs).sum()))


def test_random_neurons_share_what_chance_says():
    """400 pairs of unrelated runs: z has mean 0 and spread 1, in every row."""
    random = np.random.default_rng(0)
    z = []
    for _ in range(400):
        found = stability(*map(neurons_of, random.random((2, 2, 30, 3)) < [0.2, 0.3, 0.5]))
        z.append((found.shared - found.expected) / found.deviation)
    assert np.mean(z, axis=0) == pytest.approx(0, abs=4 / 20)
    assert np.std(z, axis=0) == pytest.approx(1, abs=0.15)


def test_a_run_with_itself_and_with_nothing_in_common():
    same = stability(A, A)
    for measure in ("containment", "containment_second", "jaccard", "dice"):
        assert (same.overlap(measure) == 1).all()
    assert (same.expected < same.shared).all()
    other = stability(A, neurons_of(~np.any(FIRST, -1)[..., None] * [1, 0, 0]))
    assert other.shared.tolist() == [0] * 5
    assert other.overlap()[0] == 0
    assert other.second.tolist() == [2, 0, 0, 2, 2]
    assert other.overlap("dice")[1] == 0
    assert math.isnan(other.overlap("containment_second")[1])
    nothing = stability(*[neurons_of(np.zeros((2, 5, 3)))] * 2)
    assert np.isnan(nothing.overlap()).all()
    assert np.isnan(nothing.to_pandas()["z"]).all()


def test_it_is_symmetric_but_for_containment_and_matches_languages_by_name(compared):
    moved = neurons_of(np.array(SECOND)[..., [2, 0, 1]], ("th", "en", "zh"))
    back = stability(B, A)
    for other in (back, stability(A, moved)):
        assert other.languages == LANGUAGES
        assert other.shared.tolist() == compared.shared.tolist()
        assert other.expected == pytest.approx(compared.expected)
        assert other.deviation == pytest.approx(compared.deviation)
        assert other.overlap().tolist() == compared.overlap().tolist()
    assert back.overlap("containment").tolist() == compared.overlap("containment_second").tolist()


def test_only_common_languages_are_compared():
    """The second run knows "sw" and not "th": neurons of "th" alone are of no common language, and
    a neuron of en and zh that is agnostic in neither run counts in both."""
    b_members = np.zeros((2, 5, 3), bool)
    b_members[0, 1] = [True, False, True]  # sw, en, zh: sw and zh
    b_members[1, 0] = [True, True, False]  # sw and en
    found = stability(A, neurons_of(b_members, ("sw", "en", "zh")))
    assert found.languages == ("en", "zh")
    assert found.first.tolist() == [4, 3, 6, 7]  # the "t" of layer 1 is left out
    assert found.second.tolist() == [1, 1, 2, 2]
    assert found.shared.tolist() == [1, 1, 2, 2]


def test_the_population_decides():
    chosen = np.array([[True, True, False, True, True], [False, True, True, True, True]])
    a = neurons_of(FIRST, selected=chosen)
    assert stability(a, B).first.tolist() == [3, 2, 2, 5, 7]
    everything = stability(a.with_population("all"), B.with_population("all"))
    assert everything.first.tolist() == [4, 3, 2, 7, 9]
    assert everything.population == "all"
    with pytest.raises(LensNeuronsError, match="the first holds all neurons, the second selected"):
        stability(a.with_population("all"), B)


def test_what_cannot_be_compared_is_refused(compared):
    with pytest.raises(LensNeuronsError, match="2 layers x 5 and of 1 x 5 do not compare: "):
        stability(A, neurons_of(SECOND[:1]))
    with pytest.raises(LensNeuronsError, match=r"no language in common: \['en', 'zh', 'th'\] a"):
        stability(A, neurons_of(SECOND, ("sw", "de", "fr")))
    with pytest.raises(LensNeuronsError, match="measure='cosine' is not known; choose one of "):
        inspect.unwrap(Stability.overlap)(compared, "cosine")


def grouped(groups: int) -> ActivationStatistics:
    random = np.random.default_rng(5)
    rates = random.beta(0.5, 2, (3, 30, 4))
    tokens = random.integers(50, 90, (groups, 4))
    counts = random.binomial(tokens[:, None, None, :], rates).astype(np.int64)
    return ActivationStatistics(("en", "zh", "th", "sw"), counts, tokens)


WIDE = {"top_rate": 0.5, "percentile": 0.7, "lambda_": 0.05}


def test_halves_are_halves():
    statistics, seen = grouped(7), []

    def find(half):
        seen.append(half)
        return identify(half, **WIDE)

    found = compare_halves(statistics, find=find, seed=3)
    first, second = seen
    assert (first.counts + second.counts == statistics.counts).all()
    halves = combinations(statistics.grouped_tokens, 3)
    assert first.tokens.tolist() in [sum(chosen).tolist() for chosen in halves]
    again = stability(identify(first, **WIDE), identify(second, **WIDE))
    assert found.shared.tolist() == again.shared.tolist()
    assert found.to_pandas()["z"].min() > 3
    other = compare_halves(statistics, find=partial(identify, **WIDE), seed=4)
    assert other.first.tolist() != found.first.tolist()
    assert compare_halves(statistics, seed=4).first.sum() < other.first.sum()


def test_one_group_has_no_halves():
    with pytest.raises(LensNeuronsError, match=r"halves need .* two groups .*collect\(\.\.\., gro"):
        compare_halves(grouped(1))


def test_its_file_keeps_its_layout_and_it_shows_itself(compared, tmp_path):
    path = compared.save(tmp_path / "stability.safetensors")
    arrays, details = load_arrays(path, "stability")
    assert set(arrays) == {"first", "second", "shared", "expected", "deviation"}
    assert set(details) == {"languages", "population", "provenances"}
    assert Stability.load(path).to_pandas().equals(compared.to_pandas())
    assert (compared.provenances, compared.population) == (MODELS, "selected")
    assert repr(compared).startswith("Stability(selected neurons; Jaccard (by chance): en 0.400 (0")
    assert "any language 0.667 (0.596)" in repr(compared)
    html = replace(compared, languages=("<i>", "zh", "th"))._repr_html_()
    assert "<td>&lt;i&gt;</td><td>4</td><td>3</td><td>2</td><td>1.2</td><td>0.500 (0.30" in html


AUTHORS = "en ru es fr de zh ja bn th sw".split()


def test_lape_and_the_paper_share_2408_neurons_of_mistral():
    statistics = read_published_counts(real_data("mistral_mgsm"), languages=AUTHORS)
    ours, lape = identify(statistics, lambda_=0.109375), identify(statistics, score="lape")
    found = stability(lape, ours)
    row = found.to_pandas().loc["any language"]
    assert (row["first"], row["second"], row["shared"]) == (4588, 3219, 2408)
    assert found.second[:10].tolist() == [142, 556, 523, 821, 941, 412, 676, 948, 622, 666]
    assert found.first[:10].tolist() == [52, 519, 530, 782, 996, 338, 678, 1137, 543, 774]
    for k, language in enumerate(AUTHORS):
        assert found.shared[k] == len(ours[language] & lape[language])
        assert found.overlap("jaccard")[k] == ours[language].jaccard(lape[language])
    sets = [reduce(or_, map(run.__getitem__, AUTHORS)) for run in (lape, ours)]
    chance = (sets[0].per_layer() * sets[1].per_layer()).sum() / 14336
    assert row["expected"] == pytest.approx(chance)
    assert 3 * 4588 * 3219 / 458_752 < chance < 0.05 * 2408  # layers alone triple the chance
