"""Regressions over few languages: by hand, permutations as loops, size under the null."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import tiny
from scipy import stats

from lensneurons.errors import LensNeuronsError
from lensneurons.tokens.prepared import prepare

STATSMODELS = pytest.importorskip(
    "statsmodels.api", reason="pip install 'lensneurons[statistics]' to test regressions"
)

from lensneurons.comparison.regressions import (  # noqa: E402
    Regression,
    language_traits,
    regress_languages,
    regress_pairs,
)

N = 10
NAMES = [f"l{i}" for i in range(N)]
ONE, TWO = np.triu_indices(N, 1)


def square(values, names=NAMES):
    table = np.ones((len(names), len(names)))
    one, two = np.triu_indices(len(names), 1)
    table[one, two] = table[two, one] = values
    return pd.DataFrame(table, names, names)


def drawn(seed):
    """An outcome of pairs and two traits, a number and a group."""
    random = np.random.default_rng(seed)
    traits = pd.DataFrame(
        {"size": random.normal(size=N), "family": list("aaaabbbccd")}, index=NAMES
    )
    central = random.normal(size=N)
    y = 0.5 * (central[ONE] + central[TWO]) + random.normal(size=len(ONE))
    size, family = (traits[k].to_numpy() for k in ("size", "family"))
    x = [np.abs(size[ONE] - size[TWO]), (family[ONE] == family[TWO]).astype(float)]
    return y, traits, np.column_stack([np.ones(len(y)), *x])


def t_of(x, y, place):
    """Student's t of a column, by the inverse of the normal equations."""
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ x.T @ y
    left = y - x @ b
    return b[place] / np.sqrt(left @ left / (len(y) - x.shape[1]) * inverse[place, place])


def robust_t_of(x, y, place):
    """The same with the error of clusters, two rows each: the sandwich of the normal equations."""
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ x.T @ y
    scores = (x * (y - x @ b)[:, None]).reshape(N, 2, -1).sum(axis=1)
    return b[place] / np.sqrt((inverse @ scores.T @ scores @ inverse)[place, place])


def test_pairs_by_hand():
    y, traits, x = drawn(0)
    found = regress_pairs(square(y), traits, draws=40, seed=5)
    b = np.linalg.solve(x.T @ x, x.T @ y)
    np.testing.assert_allclose(found.estimate, b[1:])
    less = []
    for language in range(N):
        kept = (language != ONE) & (language != TWO)
        less.append(np.linalg.solve(x[kept].T @ x[kept], x[kept].T @ y[kept]))
    less = np.array(less)[:, 1:]
    error = np.sqrt(0.9 * np.square(less - less.mean(0)).sum(0))
    np.testing.assert_allclose(found.high - found.estimate, stats.t.ppf(0.975, 9) * error)
    random = np.random.default_rng(5)
    orders = [random.permutation(N) for _ in range(40)]
    for term in (1, 2):
        others = np.delete(x, term, axis=1)
        rest = x[:, term] - others @ np.linalg.lstsq(others, x[:, term], rcond=None)[0]
        matrix = square(rest).to_numpy()
        reached = 1
        for order in orders:
            again = np.array([matrix[order[a], order[b]] for a, b in zip(ONE, TWO, strict=True)])
            t = t_of(np.column_stack([others, again]), y, 2)
            reached += abs(t) >= abs(t_of(x, y, term)) - 1e-12
        assert found.p[term - 1] == pytest.approx(reached / 41)
    r = np.corrcoef(x[:, 1], x[:, 2])[0, 1]
    np.testing.assert_allclose(found.inflation, 1 / (1 - r**2))
    assert found.terms == ("size", "family")
    assert (found.rows, len(found.languages)) == (45, 10)


def test_mixed_intercepts_are_those_of_the_usual_mixed_model():
    """One group with a column a language is the same model as a group a language."""
    random = np.random.default_rng(1)
    x, own = random.normal(size=30), random.normal(size=N).repeat(3)
    rows = pd.DataFrame({"language": np.repeat(NAMES, 3), "x": x, "gain": x + own})
    rows["gain"] += random.normal(size=30) * 0.7
    found = regress_languages(rows, "gain", predictors=["x"], draws=2)
    usual = STATSMODELS.MixedLM(rows.gain, STATSMODELS.add_constant(rows.x), rows.language).fit()
    assert found.mixed[0] == pytest.approx(usual.fe_params["x"], rel=1e-3)
    reach = stats.t.ppf(0.975, N - 2) * usual.bse_fe["x"]
    assert found.mixed_high[0] - found.mixed[0] == pytest.approx(reach, rel=1e-2)
    variance = float(usual.cov_re.iloc[0, 0])
    assert found.of_languages == pytest.approx(variance / (variance + usual.scale), rel=2e-2)


def test_languages_by_hand():
    random = np.random.default_rng(2)
    rows = pd.DataFrame(random.normal(size=(20, 2)), columns=["x", "z"])
    rows["language"] = np.tile(NAMES, 2)  # of two trainings, one after the other
    rows["gain"] = random.normal(size=20)
    found = regress_languages(rows, "gain", predictors=["x", "z"], draws=30, seed=7)
    ordered = pd.concat([rows[rows.language == k] for k in NAMES])
    x = np.column_stack([np.ones(20), ordered.x, ordered.z])
    y = ordered.gain.to_numpy()
    np.testing.assert_allclose(found.estimate, np.linalg.solve(x.T @ x, x.T @ y)[1:])
    random = np.random.default_rng(7)
    orders = [random.permutation(N) for _ in range(30)]
    for term in (1, 2):
        others = np.delete(x, term, axis=1)
        rest = y - others @ np.linalg.lstsq(others, y, rcond=None)[0]
        reached = 1
        for order in orders:
            mixed = np.concatenate([rest[2 * k : 2 * k + 2] for k in order])
            reached += abs(robust_t_of(x, mixed, term)) >= abs(robust_t_of(x, y, term)) - 1e-12
        assert found.p[term - 1] == pytest.approx(reached / 31)
    alone = regress_languages(rows.head(10), "gain", predictors=["x"], draws=2)
    assert np.isnan(alone.mixed).all()
    assert alone.detectable == pytest.approx(np.tanh((1.959964 + 0.841621) / np.sqrt(7)))


def test_the_plain_p_is_too_small_and_the_permuted_one_is_not():
    """Central languages raise all their pairs, and nothing else is there."""
    random, plain, ours, held = np.random.default_rng(3), [], [], []
    for seed in range(60):
        size, central = random.lognormal(size=N), random.normal(size=N)
        y = central[ONE] + central[TWO] + 0.5 * random.normal(size=len(ONE))
        traits = pd.DataFrame({"size": size}, index=NAMES)
        found = regress_pairs(square(y), traits, draws=39, seed=seed)
        x = np.column_stack([np.ones(45), np.abs(size[ONE] - size[TWO])])
        plain.append(2 * stats.t.sf(abs(t_of(x, y, 1)), 43))
        ours.append(found.p[0])
        held.append(found.low[0] <= 0 <= found.high[0])
    assert np.mean(np.array(plain) <= 0.05) > 0.15
    assert np.mean(np.array(ours) <= 0.05) < 0.12
    assert np.mean(held) > 0.88


def test_a_planted_predictor_is_found_beside_one_that_goes_with_it():
    random = np.random.default_rng(4)
    _, traits, _ = drawn(4)
    family = traits.family.to_numpy()
    y = 2.0 * (family[ONE] == family[TWO]) + 0.4 * random.normal(size=len(ONE))
    traits["script"] = list("xxxxxyyyzz")
    found = regress_pairs(square(y), traits, predictors=["family", "script"], draws=199)
    assert found.p[0] <= 0.01
    assert found.low[0] > 1
    assert found.low[1] <= 0 <= found.high[1]
    assert found.inflation[0] > 1.2
    assert found.mixed[0] == pytest.approx(2, abs=0.4)


def test_traits_of_a_corpus(llama):
    prepared = prepare(llama, tiny.tiny_corpus())
    found = language_traits(prepared)
    assert found.index.tolist() == ["en", "zh", "th"]
    assert found.script.tolist() == ["Latn", "Hani", "Thai"]
    encoded = prepared.encoded
    for place, language in enumerate(found.index):
        texts = [one.text for one in tiny.tiny_corpus() if one.language == language]
        tokens = encoded.lengths[encoded.language == place].sum()
        expected = tokens / sum(map(len, texts))
        assert found.tokens_per_character[language] == pytest.approx(expected)


def test_files_and_tables(tmp_path):
    y, traits, _ = drawn(6)
    found = regress_pairs(square(y), traits, draws=5, name="Jaccard")
    again = Regression.load(found.save(tmp_path / "one"))
    np.testing.assert_array_equal(again.worth, found.worth)
    assert found.to_pandas().index.tolist() == ["size", "family"]
    assert "10 languages find a partial correlation of" in repr(found)
    assert "of 45" in found.to_text()


def test_bad_input_says_what_to_do(monkeypatch):
    y, traits, _ = drawn(7)
    table = square(y)
    with pytest.raises(LensNeuronsError, match="not symmetric"):
        regress_pairs(table + np.triu(np.ones((N, N))), traits)
    with pytest.raises(LensNeuronsError, match=r"no row for \['l9'\]"):
        regress_pairs(table, traits.head(9))
    with pytest.raises(LensNeuronsError, match="predictor"):
        regress_pairs(table, traits, predictors=["script"])
    with pytest.raises(LensNeuronsError, match="6 languages or more"):
        regress_pairs(square(y[:10], NAMES[:5]), traits, predictors=["size"])
    with pytest.raises(LensNeuronsError, match="gaps"):
        regress_pairs(table, traits.assign(size=np.nan))
    with pytest.raises(LensNeuronsError, match="constant"):
        regress_pairs(table, traits.assign(size=1.0))
    lonely = traits.assign(family=["a"] * 2 + list("bcdefghi"))
    with pytest.raises(LensNeuronsError, match="without l0"):
        regress_pairs(table, lonely)
    rows = pd.DataFrame({"language": NAMES, "x": np.arange(10.0), "gain": np.arange(10) % 3.0})
    with pytest.raises(LensNeuronsError, match="1 to 2 rows"):
        regress_languages(pd.concat([rows, rows.head(3)]), "gain", predictors=["x"])
    with pytest.raises(LensNeuronsError, match="column"):
        regress_languages(rows, "gains", predictors=["x"])
    with pytest.raises(LensNeuronsError, match="holds no numbers"):
        regress_languages(rows.assign(x="a"), "gain", predictors=["x"])
    with pytest.raises(LensNeuronsError, match="draws=0"):
        regress_languages(rows, "gain", predictors=["x"], draws=0)
    monkeypatch.setitem(sys.modules, "statsmodels.api", None)
    with pytest.raises(LensNeuronsError, match=r"lensneurons\[statistics\]"):
        regress_pairs(table, traits)
