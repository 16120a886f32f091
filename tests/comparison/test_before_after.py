"""Before and after: planted changes are counted exactly, and chance is called chance."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from before_after import (
    D_MLP,
    LANGUAGES,
    LENGTHS,
    N_LAYERS,
    PARTS,
    TAU,
    TRAINED,
    Planned,
    counted,
    logits,
    noisy,
    placed,
    plan,
    runs,
)
from scipy.stats import t as student_t

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.before_after import TABLES, Comparison, compare
from lensneurons.comparison.class_counts import ClassTables, of_class
from lensneurons.comparison.nulls import DRAWS
from lensneurons.comparison.overlap import stability
from lensneurons.comparison.series import ComparisonSeries, compare_series
from lensneurons.errors import LensNeuronsError, ProvenanceError, StorageError
from lensneurons.neurons.identification import identify
from lensneurons.uncertainty.groups import group_weights
from lensneurons.values.files import load_arrays, save_arrays
from lensneurons.values.provenance import Provenance

K = len(LANGUAGES)
COUNTS = ["before", "after", "change"]


@cache
def planted(trained: tuple[str, ...] = ()) -> Comparison:
    return compare(*runs(plan()), tau=TAU, trained=trained)


def rows_of(table: Any, names: list[str]) -> list[tuple]:
    return list(table[names].itertuples(index=False, name=None))


def test_a_histogram_is_counted() -> None:
    """Every group shows the same change: no width, and no doubt about the texts."""
    silent = N_LAYERS * D_MLP - len(plan())
    table = planted().to_pandas()
    expected = [counted(range(n, n + 1)) for n in range(K + 1)]
    expected[0] = (expected[0][0] + silent, expected[0][1] + silent, expected[0][2])
    assert rows_of(table, COUNTS) == expected
    assert table["n"].tolist() == list(range(K + 1))
    names = ["unclassified", "specific", *["related"] * (K - 2), "agnostic"]
    assert table["class"].tolist() == names
    moved = table["change"] != 0
    assert moved[K]
    assert table["low"].tolist() == table["high"].tolist() == table["change"].tolist()
    assert table["p"].tolist() == [0.0 if one else 1.0 for one in moved]


def test_the_description_names_a_control() -> None:
    """A random adapter, or one of shuffled pairs, says so in every figure and table."""
    before, after = runs(plan(), groups=1)
    named = replace(after, provenance=Provenance(model="m + a (control: shuffled pairs, seed 0)"))
    found = compare(before, named, tau=TAU, trained=TRAINED)
    assert found.description.endswith("; trained zh de; CONTROL after: shuffled pairs, seed 0")
    assert "CONTROL after: shuffled pairs" in found._repr_html_()
    turned = compare(named, before, tau=TAU).description
    assert turned.endswith("no intervals; CONTROL before: shuffled pairs, seed 0")
    assert "CONTROL" not in planted().description


def test_classes_of_layers_and_parts_are_counted() -> None:
    parts, layers = planted().part_changes(PARTS), planted().to_pandas("layers")
    for table, spans in ((parts, PARTS), (layers, [(n, n) for n in range(N_LAYERS)])):
        expected = [counted(LENGTHS[name], (), span) for span in spans for name in LENGTHS]
        assert rows_of(table, COUNTS) == expected
    spans = [(number, *span) for number, span in enumerate(PARTS, 1)]
    assert rows_of(parts[::3], ["part", "first", "last"]) == spans


def test_languages_and_their_roles() -> None:
    before, after = runs(plan())
    found = compare(before, after, tau=TAU, trained=TRAINED[::-1])
    table = found.to_pandas("languages")
    roles = dict.fromkeys(LANGUAGES, "untouched") | dict.fromkeys(TRAINED, "trained")
    roles["en"] = "pivot"
    expected = [
        (language, role, name, *counted(LENGTHS[name], (language,)))
        for language, role in roles.items()
        for name in ("specific", "related")
    ]
    assert rows_of(table, ["language", "role", "class", *COUNTS]) == expected
    shuffled = compare(before, after.select(LANGUAGES[::-1]), tau=TAU, trained=TRAINED)
    assert shuffled.to_pandas("languages").equals(table)
    assert planted().role_of("sw") == ""
    with pytest.raises(LensNeuronsError, match="language='xx' is not known"):
        planted().role_of("xx")


def test_transitions_and_their_net_flow() -> None:
    flows = Counter((len(row[1]), len(row[2])) for row in plan())
    flows[0, 0] += N_LAYERS * D_MLP - len(plan())
    found = planted()
    assert {place: int(found.transitions[place]) for place in flows} == flows
    assert found.transitions.sum() == N_LAYERS * D_MLP
    table = found.to_pandas("transitions").set_index(["n_before", "n_after"])
    for (a, b), number in flows.items():
        row = table.loc[(a, b)]
        assert (row["neurons"], row["low"], row["high"]) == (number, number, number)
        assert row["net"] == number - flows[b, a]
        assert row["p"] == (1.0 if number == flows[b, a] else 0.0)
    assert found.n_before.sum() == sum(len(row[1]) for row in plan())
    layer, neuron, owners = placed(plan(), 2)[-1]
    assert found.n_after[layer, neuron] == len(owners)


def test_overlap_is_that_of_stability() -> None:
    table = planted().to_pandas("overlap").set_index("language")
    for language in LANGUAGES:
        related = [
            {i for i, row in enumerate(plan()) if language in row[run] and 0 < len(row[run]) < K}
            for run in (1, 2)
        ]
        row, both = table.loc[language], len(related[0] & related[1])
        assert (row["before"], row["after"], row["both"]) == (*map(len, related), both)
        assert row["jaccard"] == pytest.approx(both / len(related[0] | related[1]))
        assert row["jaccard_low"] == pytest.approx(row["jaccard_high"]) == row["jaccard"]
        assert row["containment"] == both / len(related[0])
    judged = stability(*(identify(run, tau=TAU, population="all") for run in runs(plan())))
    order = [judged.rows.index(language) for language in LANGUAGES]
    assert table["dice"].to_numpy() == pytest.approx(judged.overlap("dice")[order])
    assert table["expected"].to_numpy() == pytest.approx(judged.expected[order])


def test_intervals_are_the_bootstrap_of_identification() -> None:
    """Everything anew, on all neurons, for every draw of the groups: the pruned way is the same."""
    pair = noisy(np.random.default_rng(0), 0.4, groups=5, shape=(3, 50))
    tau = identify(pair[0]).tau

    def change(weights: np.ndarray) -> np.ndarray:
        drawn = (identify(run.resample(weights), tau=tau, lambda_=0.1) for run in pair)
        old, new = (neurons.layer_profile("all") for neurons in drawn)
        return (new - old).astype(float)

    draws = np.array([change(weights) for weights in group_weights(5, DRAWS, 0)])
    whole = change(np.ones(5, np.int64))
    reach = student_t.ppf(0.95, 8) * draws.std(axis=0, ddof=1) * (5 / 4) ** 0.5
    found = compare(*pair)
    assert found.tau == tau
    columns = found.to_pandas("layers", level=0.9)[["change", "low", "high"]].to_numpy().T
    for column, ends in zip(columns, (whole, whole - reach, whole + reach), strict=True):
        assert column == pytest.approx(ends.ravel())
    assert (reach > 0).any()


def memberships(tables: ClassTables) -> np.ndarray:
    change = tables.histogram_change()
    return change @ np.arange(change.shape[1])


def p_values(worlds: int, shift: float) -> np.ndarray:
    random = np.random.default_rng(3)
    pairs = (noisy(random, shift, shape=(2, 150)) for _ in range(worlds))
    return np.array([compare(*pair).change(memberships).p for pair in pairs])


def test_chance_is_called_chance() -> None:
    """Runs that differ by noise alone, with the bar of the one before: p-values are uniform."""
    p = p_values(40, 0.0)
    for level in (0.1, 0.25, 0.5, 0.75):
        error = 3 * (level * (1 - level) / 40) ** 0.5
        assert np.mean(p <= level) == pytest.approx(level, abs=error)


def test_a_shift_is_found() -> None:
    assert np.mean(p_values(12, 0.2) <= 0.05) > 0.9


def test_coverage_of_changes() -> None:
    """95 % intervals of ten groups hold the change of a large corpus in 93 to 97 %."""
    random = np.random.default_rng(4)
    base = logits(random, (3, 150), 4)
    shift = np.array([0.05, 0.2, 0.05, 0.2])

    def moved(tables: ClassTables) -> np.ndarray:
        return of_class(tables.layer_change(), "specific + related")

    large = (
        run.resample(np.ones(500, np.int64)) for run in noisy(random, shift, groups=500, base=base)
    )
    real, held = moved(compare(*large, tau=0.45).tables)[0], []
    for _ in range(40):
        change = compare(*noisy(random, shift, groups=10, base=base), tau=0.45).change(moved)
        held += [*((change.low <= real) & (real <= change.high))]
    assert 0.90 <= np.mean(held) <= 0.995  # 93 to 97 %, up to three errors of 120 intervals


def test_one_bar_for_both() -> None:
    """With each run's own percentile as many memberships pass in both, and nothing is seen."""
    before, after = noisy(np.random.default_rng(5), 0.5)
    own = [identify(run).above.sum() for run in (before, after)]
    assert own[0] == own[1]
    shared = compare(before, after)
    assert shared.tau == identify(before).tau
    assert shared.above[1].sum() > 1.3 * shared.above[0].sum()
    assert "percentile 0.95 of the run before" in repr(shared)
    assert compare(before, after, percentile=0.8).tau == identify(before, percentile=0.8).tau
    given = compare(before, after, tau=0.3)
    assert (given.tau, given.tau_origin) == (0.3, "given")


def test_the_same_run_twice_did_not_change() -> None:
    before, _ = noisy(np.random.default_rng(6))
    table = compare(before, before).to_pandas("layers")
    assert not table[["change", "low", "high"]].to_numpy().any()
    assert (table["p"] == 1).all()


def test_neurons_instead_of_statistics_have_no_intervals() -> None:
    before, after = runs(plan())
    shuffled, full = after.select(LANGUAGES[::-1]), planted()
    ours = identify(before, tau=TAU)
    for pair in ((ours, identify(shuffled, tau=0.2)), (ours, after), (before, identify(shuffled))):
        found = compare(*pair, tau=TAU)
        assert found.transitions.tolist() == full.transitions.tolist()
        assert found.tables.members.tolist() == full.tables.members.tolist()
        unknown = ["low", "high", "p", "beyond_low", "beyond_high", "beyond_p", "drift"]
        assert found.to_pandas()[unknown].isna().all(axis=None)
        nulls = ["uniform", "beyond", "own_bar"]
        assert found.to_pandas()[nulls].equals(full.to_pandas()[nulls])
        assert found.to_pandas("overlap")["jaccard_low"].isna().all()
        assert found.n_groups == 1
    assert compare(ours, after).tau == TAU
    assert compare(ours, after).tau_origin == "of the run before"


@pytest.mark.parametrize("form", ["statistics", "neurons"])
def test_other_runs_are_refused(form: str) -> None:
    origin = Provenance(corpora=("a",), scope="response", hook="hook_pre", model="m", weights="1")
    before, after = (replace(run, provenance=origin) for run in runs(plan()))
    trained = replace(after, provenance=replace(origin, model="n", weights="2", config="c"))
    compare(before, trained, tau=TAU)
    half = replace(after, grouped_counts=after.grouped_counts[:, :4])
    groups = replace(runs(plan(), groups=3)[1], provenance=origin)
    others = [
        (replace(after, provenance=replace(origin, corpora=("b",))), r"corpora: \('a',\) and \('b"),
        (replace(after, provenance=replace(origin, scope="prompt")), "scope: 'response' and 'pro"),
        (
            replace(after, provenance=replace(origin, hook="hook_post")),
            "hook: 'hook_pre' and 'hook_p",
        ),
        (replace(after, provenance=replace(origin, tokenizer="t")), "tokenizer: 'unknown' and 't'"),
        (after.select(LANGUAGES[:4]), "the two differ in languages: "),
        (half, "the two differ in n_layers: 8 and 4"),
    ]
    for other, told in others:
        pair = (before, other) if form == "statistics" else (identify(before), identify(other))
        with pytest.raises(ProvenanceError, match=told):
            compare(*pair, tau=TAU)
    with pytest.raises(ProvenanceError, match="the two differ in n_groups: 6 and 3"):
        compare(before, groups)
    with pytest.raises(LensNeuronsError, match=r"only \['en'\] was counted: classes need two"):
        compare(before.select(("en",)), after.select(("en",)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tau": "after"}, r"tau='after' is not known; choose one of \['before'\]"),
        ({"tau": 1.0}, r"tau=1.0 is not an activation probability in \[0, 1\)"),
        ({"percentile": 95.0}, "percentile=95.0 is not a share between 0 and 1"),
        ({"trained": ("xx",)}, "trained language='xx' is not known; choose one of"),
        ({"trained": "zh"}, r"trained='zh' is one text: write \('zh',\)"),
        ({"trained": ("en",)}, "'en' is both trained and pivot: pass pivot=None"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LensNeuronsError, match=told):
        inspect.unwrap(compare)(*runs(plan()), **options)


def test_a_language_in_one_group_is_refused_with_a_way_out() -> None:
    tokens = np.array([[9, 9], [9, 0]])
    counts = np.minimum(tokens, 1)[:, None, None].repeat(30, axis=2)
    lonely = ActivationStatistics(("en", "sw"), counts, tokens)
    with pytest.raises(LensNeuronsError, match=r"all items of \['sw'\] fell into one group"):
        compare(lonely, lonely)
    pooled = lonely.resample(np.ones(2, np.int64))
    assert compare(pooled, pooled).n_groups == 1


def test_tables_and_parts_that_are_not_there() -> None:
    found = planted()
    with pytest.raises(LensNeuronsError, match="table='layer' is not known.*'layers'"):
        inspect.unwrap(Comparison.to_pandas)(found, "layer")
    for spans in ([(0, 3), (3, 7)], [(0, 8)], [], [(-1, 2)]):
        with pytest.raises(LensNeuronsError, match="are not first and last layers, in order, of 8"):
            found.part_changes(spans)


CLASS_TABLES = ("layers", "members", "transitions", "stayed", "selected")
ARRAYS = {"flat", "above", "selected"}
DRAWN = ("uniform", "own_bar", "drift", "alike", "drawn")
DRAWN += ("uniform_drawn", "drift_drawn", "alike_drawn")
ARRAYS |= {f"{name}.{part}" for name in DRAWN for part in CLASS_TABLES}
DETAILS = {"languages", "n_layers", "d_mlp", "tau", "tau_origin", "trained", "pivot", "provenance"}
DETAILS |= {"own_tau", "n_groups", "nulls"}
SHARING = "pairs informative share_of_all share excess error neurons contrast contrast_error"
DETAILS |= {f"sharing.{part}" for part in SHARING.split()}


def test_files_come_back_and_keep_their_layout(tmp_path: Path) -> None:
    full, bare = planted(TRAINED), compare(*map(identify, runs(plan())))
    path = full.save(tmp_path / "change.safetensors")
    arrays, details = load_arrays(path, "comparison")
    assert (arrays.keys(), details.keys()) == (ARRAYS, DETAILS)
    series = ComparisonSeries("0", ("a", "b"), (bare, full))
    file = series.save(tmp_path / "series.safetensors")
    arrays, details = load_arrays(file, "comparison series")
    assert {name for name in arrays if name[0] == "1"} == {f"1.{name}" for name in ARRAYS}
    assert (details["names"], details["each"][1].keys()) == (["a", "b"], DETAILS)
    again = ComparisonSeries.load(file)
    assert repr(again) == repr(series)
    for found, loaded in ((full, Comparison.load(path)), (full, again["b"]), (bare, again["a"])):
        for table in TABLES:
            assert loaded.to_pandas(table).equals(found.to_pandas(table))
        assert (repr(loaded), loaded.provenance) == (repr(found), found.provenance)
        ours, theirs = (one.sharing._pack() if one.sharing else None for one in (found, loaded))
        np.testing.assert_equal(theirs, ours)


@pytest.mark.parametrize("version", [None, 2, "3"])
def test_files_with_other_nulls_are_refused(tmp_path: Path, version: object) -> None:
    """The same arrays under another definition would load, and mean something else."""
    arrays, details = planted(TRAINED)._pack()
    details = {key: entry for key, entry in details.items() if key != "nulls"}
    details |= {"nulls": version} if version else {}
    told = f"this comparison was saved by .* other nulls .version {version or 'unknown'}, these are"
    path = save_arrays(tmp_path / "old.safetensors", "comparison", arrays, details)
    with pytest.raises(StorageError, match=f"{told} version 3.*: delete the file, and compare"):
        Comparison.load(path)
    details = {"first": "0", "names": ["a"], "each": [details]}
    arrays = {f"0.{name}": array for name, array in arrays.items()}
    path = save_arrays(tmp_path / "series.safetensors", "comparison series", arrays, details)
    with pytest.raises(StorageError, match=f"{told} version 3.*: delete the file, and compare"):
        ComparisonSeries.load(path)


def test_it_shows_itself() -> None:
    found = planted(TRAINED)
    assert repr(found).startswith(
        "Comparison(all 1,600 neurons; tau 0.5000 (given); 6 groups of items; trained zh de; "
        "neurons by N 0: "
    )
    assert "<td>8</td><td>agnostic</td>" in found._repr_html_()
    bad = tuple("<b>" if k == "zh" else k for k in LANGUAGES)
    hostile = compare(*runs([], languages=bad), tau=TAU, trained=("<b>",))
    assert "<b>" not in hostile._repr_html_()
    data = found.to_xarray()
    assert data["n_after"].dims == ("layer", "neuron")
    assert int(data["transitions"].sum()) == N_LAYERS * D_MLP


def test_measures_are_sums_of_the_tables() -> None:
    """Every measure of the figures and claims, against the plan and the tables."""
    found, rows = planted(TRAINED), plan()
    histogram = found.to_pandas()["change"].to_numpy()
    layers = found.to_pandas("layers")["change"].to_numpy().reshape(N_LAYERS, 3)
    languages = found.to_pandas("languages")["change"].to_numpy().reshape(K, 2)
    rise = sum(np.sign(len(after) - len(before)) for _, before, after in rows)
    places = [1, 2, 5]
    for measure, expected in (
        (ClassTables.histogram_change, histogram),
        (ClassTables.class_change, layers.sum(axis=0)),
        (ClassTables.class_change_by_layer, layers),
        (ClassTables.class_change_by_language, languages),
        (lambda t: t.mean_change(places, "related"), languages[places, 1].mean()),
        (lambda t: t.change_above(3), histogram[3:].sum()),
        (ClassTables.net_rise, rise),
    ):
        change = found.change(measure)
        assert change.estimate.tolist() == np.asarray(expected).tolist()
        assert change.low.shape == change.p.shape == change.estimate.shape
    assert found.change(ClassTables.class_change)[1].estimate == layers[:, 1].sum()


def checkpoints() -> Iterator[tuple[str, ActivationStatistics]]:
    rows = plan()
    half: list[Planned] = [row if i % 2 else (row[0], row[1], row[1]) for i, row in enumerate(rows)]
    yield "0", runs(rows)[0]
    yield "500", runs(half)[1]
    yield "1000", runs(rows)[1]


def test_a_series_compares_with_the_first() -> None:
    series = compare_series(checkpoints(), tau=TAU, trained=TRAINED)
    assert (series.first, list(series), len(series)) == ("0", ["500", "1000"], 2)
    assert series["1000"].to_pandas().equals(planted().to_pandas())
    moved = sum(len(after) - len(before) for _, before, after in plan()[1::2])
    assert int(memberships(series["500"].tables)[0]) == moved
    table = series.to_pandas("languages")
    assert table["checkpoint"].tolist() == ["500"] * 2 * K + ["1000"] * 2 * K
    change = series.change(ClassTables.class_change)
    assert change.estimate.shape == change.low.shape == change.p.shape == (3, 3)
    assert not change.estimate[0].any()
    by_layer = series["1000"].to_pandas("layers")["change"].to_numpy().reshape(N_LAYERS, 3)
    assert change.estimate[2].tolist() == by_layer.sum(axis=0).tolist()
    assert "500 1000 against 0; all 1,600 neurons" in series._repr_html_()
    assert compare_series(dict(checkpoints())).comparisons[1].tau == identify(runs(plan())[0]).tau


def test_a_series_says_what_is_wrong() -> None:
    first, *later = checkpoints()
    for few in ([first], []):
        with pytest.raises(LensNeuronsError, match="a series needs at least two checkpoints"):
            compare_series(few)
    with pytest.raises(LensNeuronsError, match="the checkpoint '0' is named twice"):
        compare_series([first, first])
    with pytest.raises(LensNeuronsError, match="checkpoint='7' is not known"):
        compare_series([first, *later])["7"]
    wrong = ("500", later[0][1].select(LANGUAGES[:3]))
    with pytest.raises(ProvenanceError, match="checkpoint '500' against '0': the two differ in"):
        compare_series([first, wrong])
    with pytest.raises(LensNeuronsError, match=r"tau='before' is not known; choose one of \['fi"):
        inspect.unwrap(compare_series)([first, *later], tau="before")
