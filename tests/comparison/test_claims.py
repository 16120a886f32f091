"""The paper's claims as tests: planted worlds in which each verdict is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import comparison_worlds
import numpy as np
import pytest
import unseen_worlds
from before_after import (
    LANGUAGES,
    LENGTHS,
    N_LAYERS,
    PARTS,
    TAU,
    TRAINED,
    UNTOUCHED,
    Planned,
    counted,
    plan,
    runs,
)
from real_data import real_data

from lensneurons.comparison import before_after
from lensneurons.comparison.before_after import Comparison, compare
from lensneurons.comparison.paper_claims import NAN, Claim, Claims, claims, decided
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.neurons.language_neurons import LAYER_CLASSES
from lensneurons.neurons.parts import Part, divide_layers
from lensneurons.neurons.published import read_published_counts
from lensneurons.values.files import save_json

K = len(LANGUAGES)
SHARED = "neurons newly related to untouched languages are shared with trained ones"
FEW = "English has fewer selected specific neurons than any other language (before)"
RELATED = "related neurons of a language, mean over untouched ones"
WIDE = "selected related neurons of English are shared with the most languages (before)"


PART_SIGNS = (
    *((1, "specific", "rises"), (1, "related", "rises"), (1, "agnostic", "falls")),
    *((2, "agnostic", "rises"), (3, "specific + related", "rises"), (3, "agnostic", "falls")),
    *((4, "specific", "falls"), (4, "related", "falls"), (4, "agnostic", "rises")),
)


@cache
def expected() -> dict[str, tuple[str, float]]:
    """Every claim about changes, its expected sign, and what the plan holds."""
    lengths = {**LENGTHS, "specific + related": range(1, K)}
    found = {
        f"part {part}: {name} neurons": (sign, counted(lengths[name], (), PARTS[part - 1])[2])
        for part, name, sign in PART_SIGNS
    }
    numbers = [counted(range(n, n + 1))[2] for n in range(1, K + 1)]
    for n, number in enumerate(numbers, 1):
        found[f"neurons with N = {n}"] = ("falls" if n <= 2 else "rises", number)
    claim = f"neurons with N = {K} rise more than those with any other N > 0"
    found[claim] = ("positive", numbers[-1] - max(numbers[:-1]))
    for role, languages in (("trained", TRAINED), ("untouched", UNTOUCHED)):
        for name, sign in (("specific", "falls"), ("related", "rises")):
            change = counted(lengths[name], languages)[2] / len(languages)
            found[f"{name} neurons of a language, mean over {role} ones"] = (sign, change)
    return found


@cache
def planted(groups: int = 6) -> Comparison:
    return compare(*runs(plan(), groups=groups), tau=TAU, trained=TRAINED)


def test_every_claim_is_measured_against_its_nulls() -> None:
    """The change is that of the plan; the number that decides is the least of four."""
    found = claims(planted(), parts=PARTS)
    for claim, (sign, value) in expected().items():
        row = found[claim]
        assert (row.expected, row.change) == (sign, value), claim
        turn = -1 if sign == "falls" else 1
        nulls = (0.0, row.uniform, row.drift, row.alike)
        least_of = min(turn * (value - null) for null in nulls)
        if "more than" not in claim:
            assert turn * row.measured == pytest.approx(least_of), claim
        assert row.low <= row.measured <= row.high
        assert (row.p <= 0.05) == (row.low > 0 or row.high < 0) or row.low == row.high, claim
        assert row.p <= row.p_adjusted <= 1
        right = row.p_adjusted <= 0.05
        assert (row.verdict == "undecided") == (not right), claim
    assert found["neurons with N = 3"].verdict == "holds"
    names = [SHARED, f"{SHARED}, more than with others", FEW, WIDE]
    assert [row.claim for row in found] == [*expected(), *names]

    sharing = planted().sharing
    assert sharing is not None
    first, second = found[SHARED], found[f"{SHARED}, more than with others"]
    assert (first.measured, second.measured) == (sharing.excess, sharing.contrast)
    assert (first.verdict, second.verdict) == ("holds", "holds")
    assert np.isnan([first.change, first.uniform, first.drift, first.alike]).all()


def test_few_neurons_decide_nothing() -> None:
    """A change of one neuron that no text doubts is still one neuron."""
    found = claims(planted(), parts=PARTS)
    for claim, (_, value) in expected().items():
        if abs(value) < 10 and "mean over" not in claim:
            assert found[claim].verdict == "undecided", claim


def test_the_contrary_does_not_hold() -> None:
    """Before and after exchanged: what changed greatly has the wrong sign."""
    before, after = runs(plan())
    found = claims(compare(after, before, tau=TAU, trained=TRAINED), parts=PARTS)
    for claim, (_, value) in expected().items():
        row = found[claim]
        assert row.verdict != "holds", claim
        assert row.change == -value or "more than" in claim
        if abs(value) > 20 and "more than" not in claim:
            assert (row.verdict, row.reason) == ("does not hold", ""), claim


def test_nothing_changed() -> None:
    """Of many neurons that says that the claim does not hold; of a few it says nothing."""
    before, _ = runs(plan())
    found = claims(compare(before, before, tau=TAU, trained=TRAINED), parts=PARTS)
    row = found["neurons with N = 1"]
    still = ("does not hold", 0, 1.0, "nothing changed in any draw of items")
    assert (row.verdict, row.measured, row.p, row.reason) == still
    for claim, there in (("neurons with N = 3", "only 1"), ("neurons with N = 5", "no")):
        row = found[claim]
        told = f"nothing to change: there are {there} such neurons"
        assert (row.verdict, row.measured, row.reason) == ("undecided", 0, told)
        assert np.isnan([row.p, row.p_adjusted]).all()
    told = (found[SHARED].verdict, found[SHARED].reason)
    assert told == ("undecided", "there are no newly related neurons")


def test_one_group_tells_the_sign() -> None:
    pair = (run.resample(np.ones(6, np.int64)) for run in runs(plan()))
    found = claims(compare(*pair, tau=TAU, trained=TRAINED), parts=PARTS)
    assert {row.verdict for row in found} == {"undecided"}
    row = found["neurons with N = 1"]
    assert row.measured == row.change == expected()[row.claim][1]
    assert row.reason == "no interval without groups of items (the sign is as expected)"
    assert np.isnan([row.low, row.high, row.p, row.drift, row.alike]).all()
    assert np.isfinite([row.uniform, row.own_bar]).all()


def test_too_few_informative_pairs_are_undecided() -> None:
    rows: list[Planned] = [
        (layer, ("en", "zh"), ("en", "zh", k)) for layer, k in enumerate(LANGUAGES[3:])
    ]
    row = claims(compare(*runs(rows), tau=TAU, trained=TRAINED))[SHARED]
    assert row.verdict == "undecided"
    assert row.reason.startswith("too few: 0 of 5 new pairs are informative")


def test_without_parts_and_training() -> None:
    found = claims(compare(*runs(plan()), tau=TAU))
    assert found["part 1: agnostic neurons"].reason == "no parts"
    for claim in (SHARED, "specific neurons of a language, mean over trained ones"):
        assert found[claim].reason == "compare(..., trained=...) was not given"
    every = claims(compare(*runs(plan()), tau=TAU, trained=LANGUAGES[1:]))
    name = "related neurons of a language, mean over {} ones"
    assert every[name.format("untouched")].reason == "no language is untouched"
    assert every[name.format("trained")].verdict == "holds"


def test_parts_as_they_were_found() -> None:
    counts = planted().to_pandas("layers").pivot(index="layer", columns="class", values="before")
    own = counts[list(LAYER_CLASSES)].to_numpy(np.int64)
    other = divide_layers(np.full((N_LAYERS, 3), 9))
    with pytest.raises(
        LensNeuronsError, match="parts are of another layer profile .* than the mod"
    ):
        claims(planted(), parts=other)
    flat = replace(other, profile=own)
    assert claims(planted(), parts=flat)["part 1: specific neurons"].reason == "no parts"
    with pytest.raises(LensNeuronsError, match="four parts were not found: LayerParts"):
        planted().part_changes(flat)
    four = tuple(Part(i, f"part {i}", *span) for i, span in enumerate(PARTS, 1))
    found = replace(flat, found=True, parts=four)
    rows = claims(planted(), parts=PARTS).to_pandas()
    assert claims(planted(), parts=found).to_pandas().equals(rows)
    assert planted().part_changes(found).equals(planted().part_changes(PARTS))
    with pytest.raises(LensNeuronsError, match="3 parts were given: the claims are about four"):
        claims(planted(), parts=PARTS[:3])


def english(rows: list[Planned], monkeypatch: pytest.MonkeyPatch) -> Claims:
    """Claims where all neurons count as selected."""
    monkeypatch.setattr(before_after, "_selected", lambda run, _: np.ones((8, 200), bool))
    before, after = runs(rows)
    return claims(compare(before, after, tau=TAU))


def test_english(monkeypatch: pytest.MonkeyPatch) -> None:
    own: list[Planned] = [(0, (k,), ()) for k in LANGUAGES for _ in range(2 + (k == "sw"))][1:]
    wide: list[Planned] = [(1, LANGUAGES[:6], ()), (1, LANGUAGES[6:], ())]
    wide += [(2, LANGUAGES[1:3], ()), (2, LANGUAGES[3:6], ())]
    found = english([*own, *wide], monkeypatch)
    assert (found[FEW].measured, found[FEW].verdict) == (1, "holds")  # 1 against 2
    assert found[WIDE].measured == pytest.approx(6 - 9 / 2)  # sw, th and fr: in 6 and in 3
    assert found[WIDE].verdict == "holds"
    assert found[FEW].p == 0  # every group says the same
    more: list[Planned] = [(3, ("en",), ()) for _ in range(5)]
    found = english([*own, *wide, *more, (3, LANGUAGES[1:], ())], monkeypatch)
    assert (found[FEW].measured, found[FEW].verdict) == (-4, "does not hold")
    assert found[WIDE].measured == pytest.approx(6 - 16 / 3)


def test_english_where_it_cannot_be_told() -> None:
    names = tuple("pt" if k == "en" else k for k in LANGUAGES)
    rows = [(0, ("zh",), ("zh",))]
    row = claims(compare(*runs(rows, languages=names), tau=TAU))[FEW]
    assert (row.verdict, row.reason) == ("undecided", "English was not counted")
    none = replace(planted(), selected=np.zeros(len(planted().flat), bool))
    assert claims(none)[WIDE].reason == "no lambda selects neurons"


def test_published_counts_have_signs_but_no_verdicts() -> None:
    """English has 12 selected specific neurons, Chinese 48; there is one group of items."""
    authors = "en ru es fr de zh ja bn th sw".split()
    counts = read_published_counts(real_data("mistral_mgsm"), languages=authors)
    found = claims(compare(counts, counts))
    assert found[FEW].measured == 48 - 12
    assert found[WIDE].measured > 1
    assert {row.verdict for row in found} == {"undecided"}


def row_of(p: float, measured: float = 2.0, expected: str = "rises", change: float = 2.0) -> Claim:
    """A claim that waits for its verdict."""
    numbers = (measured, measured - 1, measured + 1, p, NAN)
    return Claim("it", expected, *numbers, "undecided", "the change", change=change)  # pyright: ignore[reportArgumentType]


def test_verdicts_follow_the_adjusted_p() -> None:
    rows = [
        row_of(0.01),
        row_of(0.012, -2.0, "falls", -2.0),
        row_of(0.001, -2.0, change=-2.0),
        row_of(0.0011, -2.0, change=5.0),
        row_of(0.03),
        replace(row_of(NAN), reason="no parts"),
    ]
    found = decided(rows, 0.95)
    adjusted = [0.03, 0.03, 0.005, 0.005, 0.03]
    assert [row.p_adjusted for row in found[:5]] == pytest.approx(adjusted)
    verdicts = ["holds", "holds", "does not hold", "does not hold", "holds", "undecided"]
    assert [row.verdict for row in found] == verdicts
    assert [row.reason for row in found] == ["", "", "", "the change is negative", "", "no parts"]
    strict = decided(rows, 0.99)
    assert [row.verdict for row in strict][:3] == ["undecided", "undecided", "does not hold"]
    assert strict[0].reason == "adjusted p = 0.03 (the change)"


@cache
def verdicts_of(world: str, number: int) -> Claims:
    random = np.random.default_rng([7, number])
    before = comparison_worlds.draw_truth(random)
    after = comparison_worlds.change(world, random, before)
    pair = comparison_worlds.read(random, before, after)
    return claims(compare(*pair, trained=comparison_worlds.TRAINED), parts=PARTS)


@pytest.mark.parametrize("world", ["activity", "drift", "common drift", "both", "nothing"])
def test_worlds_without_sharing_do_not_look_like_the_paper(world: str) -> None:
    """More firing, noise without a direction, both, and nothing: no claim holds."""
    found = verdicts_of(world, 0)
    assert [row.claim for row in found if row.verdict == "holds"] == []
    if world in ("activity", "both"):  # the change itself is there, and is not taken for sharing
        row = found[RELATED]
        assert row.change > 15
        assert abs(row.own_bar) < row.change
        assert row.uniform > 0.7 * row.change


@pytest.mark.parametrize("world", ["alignment", "exchange"])
def test_sharing_is_found_with_and_without_more_activity(world: str) -> None:
    found = [verdicts_of(world, number)[SHARED] for number in range(2)]
    assert all(row.measured > 0 for row in found)
    assert any(row.p <= 0.05 for row in found)
    if world == "alignment":  # neurons that are joined are not an equal rise of all firing
        rows = [verdicts_of(world, number)[RELATED] for number in range(2)]
        assert all(max(row.uniform, row.alike) < 0.4 * row.change for row in rows)
        assert all(row.p <= 0.05 for row in rows)


def test_neurons_that_fire_more_in_all_languages_are_no_alignment() -> None:
    """A median of a layer and noise do not explain them; what their other languages do does."""
    random, shape = np.random.default_rng([7, 4]), unseen_worlds.WORLDS["gifted"]
    pair = unseen_worlds.draw("gifted", random)
    found = claims(compare(*pair, trained=shape.names[1 : 1 + shape.trained]), parts=PARTS)
    assert [row.claim for row in found if row.verdict == "holds"] == []
    row = found[RELATED]
    assert row.change > 10
    assert max(row.uniform, row.drift) < 0.5 * row.change
    assert row.alike == pytest.approx(row.change, abs=0.3 * row.change)


def test_claims_come_back_and_show_themselves(tmp_path: Path) -> None:
    found = claims(planted(), level=0.9)
    again = Claims.load(found.save(tmp_path / "claims.json"))
    assert again.to_pandas().equals(found.to_pandas())
    assert (repr(again), again.level) == (repr(found), 0.9)
    reloaded = Comparison.load(planted().save(tmp_path / "change.safetensors"))
    assert claims(reloaded, level=0.9).to_pandas().equals(found.to_pandas())
    kept = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert (kept["level"], kept["about"], len(kept["claims"])) == (0.9, found.description, 26)
    unknown = {"claim": "part 1: specific neurons", "measured": None, "verdict": "undecided"}
    assert unknown.items() <= kept["claims"][0].items()
    kept["claims"][0]["permuted"] = "before and after swapped within groups of items"
    old = save_json(tmp_path / "old.json", {k: kept[k] for k in ("claims", "level", "about")})
    with pytest.raises(StorageError, match="by an earlier lensneurons.*test the claims again"):
        Claims.load(old)
    del kept["claims"][0]["permuted"]
    for nulls in ({}, {"nulls": 2}):
        without = {k: kept[k] for k in ("claims", "level", "about")}
        old = save_json(tmp_path / "old.json", without | nulls)
        told = "old.json was saved by another lensneurons.*: delete it, compare the two runs"
        with pytest.raises(StorageError, match=told):
            Claims.load(old)
    found = claims(planted())
    assert repr(found).startswith("Claims(26: 21 undecided, 5 holds; all 1,600")
    names = "claim expected measured low high p p_adjusted verdict reason change uniform drift"
    assert list(found.to_pandas()) == [*names.split(), "alike", "own_bar"]
    page = found._repr_html_()
    assert ">undecided: no parts</td>" in page
    assert "N &gt; 0" in page
    with pytest.raises(LensNeuronsError, match="claim='English is unique' is not known; choose"):
        found["English is unique"]
    with pytest.raises(LensNeuronsError, match=r"level=0.0: give a coverage"):
        claims(planted(), level=0.0)
