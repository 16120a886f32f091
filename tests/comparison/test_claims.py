"""The paper's claims as tests: planted worlds in which each verdict is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
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
    noisy,
    plan,
    runs,
)
from lensneurons.uncertainty.swaps import swap_p_least
from real_data import real_data

from lensneurons.comparison import before_after
from lensneurons.comparison.before_after import Comparison, compare
from lensneurons.comparison.paper_claims import Claims, claims, judged
from lensneurons.errors import LensNeuronsError
from lensneurons.neurons.parts import Part, divide_layers
from lensneurons.neurons.published import read_published_counts
from lensneurons.uncertainty.groups import jackknife_interval

K = len(LANGUAGES)
SHARED = "neurons newly related to untouched languages are shared with trained ones"
FEW = "English has fewer selected specific neurons than any other language (before)"
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


def test_every_claim_is_measured_and_holds_where_it_was_planted() -> None:
    found = claims(planted(), parts=PARTS)
    for claim, (sign, value) in expected().items():
        row = found[claim]
        assert (row.expected, row.measured) == (sign, value), claim
        assert (row.low, row.high) == (pytest.approx(value), pytest.approx(value)), claim
        assert (row.verdict, row.p, row.reason) == ("holds", 1 / 2**6, ""), claim
        assert (value < 0) == (sign == "falls")
    names = [SHARED, f"{SHARED}, more than with others", FEW, WIDE]
    assert [row.claim for row in found] == [*expected(), *names]

    sharing = planted().sharing
    assert sharing is not None
    first, second = found[SHARED], found[f"{SHARED}, more than with others"]
    assert (first.measured, first.p) == (sharing.excess, sharing.flipped_p[0])
    assert (second.measured, second.p) == (sharing.contrast, 1 / 21)
    assert (first.verdict, second.verdict) == ("holds", "holds")
    assert (first.permuted, second.permuted) == (
        "which matched pairs are new",
        "which languages are called trained",
    )


def test_the_contrary_does_not_hold() -> None:
    """Before and after exchanged: every change has the wrong sign."""
    before, after = runs(plan())
    found = claims(compare(after, before, tau=TAU, trained=TRAINED), parts=PARTS)
    for claim, (_, value) in expected().items():
        row = found[claim]
        assert (row.verdict, row.reason) == ("does not hold", ""), claim
        assert row.measured == -value or "more than" in claim


def test_nothing_changed() -> None:
    before, _ = runs(plan())
    found = claims(compare(before, before, tau=TAU, trained=TRAINED), parts=PARTS)
    still = ("does not hold", 0, 1.0, "nothing changed in any group of items")
    for claim in expected():
        row = found[claim]
        assert (row.verdict, row.measured, row.p, row.reason) == still
    told = (found[SHARED].verdict, found[SHARED].reason)
    assert told == ("undecided", "there is nothing to measure it on")


def test_few_groups_decide_nothing_and_one_tells_the_sign() -> None:
    row = claims(planted(4), parts=PARTS)["neurons with N = 1"]
    assert (row.verdict, row.p, row.reason) == ("undecided", 1 / 16, "p = 0.0625")
    assert claims(planted(4), parts=PARTS, level=0.9)["neurons with N = 1"].verdict == "holds"
    pair = (run.resample(np.ones(6, np.int64)) for run in runs(plan()))
    found = claims(compare(*pair, tau=TAU, trained=TRAINED), parts=PARTS)
    assert {row.verdict for row in found} == {"undecided"}
    row = found["neurons with N = 1"]
    assert row.measured == expected()[row.claim][1]
    assert row.reason == "no interval without groups of items (the sign is as expected)"
    assert np.isnan([row.low, row.high, row.p]).all()


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
    flat = divide_layers(np.full((N_LAYERS, 3), 9), shuffles=20)
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
    assert np.isnan(found[FEW].p)
    assert found[FEW].permuted == "none: a rank, decided by its interval"
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


def test_noise_decides_little() -> None:
    """Two runs that differ by noise alone: a claim holds in at most 2.5 %, and fails in as many."""
    random = np.random.default_rng(0)
    pairs = (noisy(random, groups=10, shape=(2, 200)) for _ in range(60))
    rows = [row for pair in pairs for row in claims(compare(*pair))]
    verdicts = [row.verdict for row in rows if row.claim.startswith("neurons with")]
    for verdict in ("holds", "does not hold"):
        assert verdicts.count(verdict) <= 0.025 * len(verdicts)


def test_power_in_standard_errors() -> None:
    """Ten groups: changes of 3, 4 and 5 standard errors are found in 77, 94 and 99 %."""
    random = np.random.default_rng(1)
    for size, share in ((3, 0.77), (4, 0.94), (5, 0.99)):
        groups = size / 10**0.5 + random.normal(0, 1, (10, 400))
        found = jackknife_interval(groups.mean(0), (groups.sum(0) - groups) / 9)
        held = []
        for i, ends in enumerate(np.stack([found.estimate, found.low, found.high], 1).tolist()):
            p = swap_p_least(groups[:, [i]])
            row = judged("it", "rises", tuple(ends), p=p, permuted="", level=0.95)
            held.append(row.verdict == "holds")
        assert np.mean(held) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(
    ("ends", "p", "verdict", "reason"),
    [
        ((2.0, 1.0, 3.0), (0.01, 1.0), "holds", ""),
        ((2.0, 1.0, 3.0), (0.05, 1.0), "holds", ""),
        ((2.0, 1.0, 3.0), (0.06, 1.0), "undecided", "p = 0.06"),
        ((2.0, 1.0, 3.0), None, "holds", ""),
        ((2.0, 0.0, 3.0), (0.01, 1.0), "undecided", "the interval holds 0"),
        ((-2.0, -3.0, -1.0), (1.0, 0.01), "does not hold", ""),
        ((-2.0, -3.0, -1.0), (1.0, 0.2), "undecided", "p of the contrary = 0.2"),
        ((-2.0, -3.0, 0.0), (1.0, 0.01), "undecided", "the interval holds 0"),
        ((0.0, 0.0, 0.0), (1.0, 1.0), "undecided", "the interval holds 0"),
    ],
)
def test_verdicts(ends: tuple, p: tuple | None, verdict: str, reason: str) -> None:
    row = judged("it", "falls", ends, p=p, permuted="", level=0.95)
    assert (row.verdict, row.reason) == (verdict, reason)
    assert (row.measured, row.low, row.high) == (-ends[0], -ends[2], -ends[1])


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
    found = claims(planted())
    assert repr(found).startswith(f"Claims({len(found)}: 11 undecided, 15 holds; all 1,600")
    names = "claim expected measured low high p permuted verdict reason"
    assert list(found.to_pandas()) == names.split()
    page = found._repr_html_()
    assert "<td>undecided: no parts</td>" in page
    assert "N &gt; 0" in page
    with pytest.raises(LensNeuronsError, match="claim='English is unique' is not known; choose"):
        found["English is unique"]
    with pytest.raises(LensNeuronsError, match=r"level=0.0: give a coverage"):
        claims(planted(), level=0.0)
