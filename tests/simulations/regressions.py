"""Size of the tests and coverage of the intervals of regressions over ten languages; run by hand.

    python tests/simulations/regressions.py --studies 300 --seed 0

Pairs: languages are more or less central, so all pairs of a language go up or down together
(`--share` of the variance). Predictors: a distance of numbers, and "same group" of unequal groups.
Languages: one training, with errors that grow with the predictor; or three trainings that go
together within a language. Where something is there, it is .5 standard deviations of the noise per
standard deviation of the predictor.

80 studies of pairs (seed 0) and 200 of languages, two minutes of CPU. Plain and permuted p
at most .05, interval of the jackknife and of the mixed model, rows worth:

    nothing is there: pairs, distance, share 0     .06 .06 1.0  .95  16
                                       share .5    .14 .00 .98  .99  12
                                       share .8    .24 .09 .91  .95  10
                      pairs, same, share 0         .03 .03 1.0  .97  20
                                   share .5        .04 .04 .99  .94  22
                                   share .8        .03 .04 1.0  .95  24
                      languages, 1 training        .13 .09 .92   -    5
                                 3 trainings       .12 .07 .93  .96  15
    .5 is there:      pairs, distance, share 0     .94 .90 1.0  .96  17
                                       share .5    .85 .66 1.0  1.0  17
                                       share .8    .84 .59 .96  .98  14
                      pairs, same, share 0         .90 .90 .98  .96  21
                                   share .5        .93 .93 .99  .99  23
                                   share .8        .99 .99 1.0  .98  20
                      languages, 1 training        .29 .22 .91   -    5
                                 3 trainings       .58 .21 .95  .97  16

Printed: how often p is at most .05 by least squares as if rows were independent, and by permuted
languages; how often the intervals hold the truth (jackknife over languages, mixed model); and the
mean number of independent rows that the rows are worth.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
import statsmodels.api as sm

from lensneurons.comparison.regressions import regress_languages, regress_pairs

N = 10


def pairs_study(random, share, effect, sort, seed):
    """One study of pairs: plain p, ours, hits of both intervals, worth, and whether it told."""
    names = [f"l{i}" for i in range(N)]
    trait = random.lognormal(size=N) if sort == "distance" else None
    values = trait if trait is not None else np.array(list("aaaabbbccd"))[random.permutation(N)]
    traits = pd.DataFrame({"trait": values}, index=names)
    one, two = np.triu_indices(N, 1)
    x = np.abs(values[one] - values[two]) if sort == "distance" else values[one] == values[two]
    x = x.astype(float)
    central, noise = random.normal(size=N), random.normal(size=len(one))
    slope = effect / x.std()
    y = np.sqrt(share / 2) * (central[one] + central[two]) + np.sqrt(1 - share) * noise + slope * x
    table = np.zeros((N, N))
    table[one, two] = table[two, one] = y
    found = regress_pairs(pd.DataFrame(table, names, names), traits, draws=199, seed=seed)
    return found, sm.OLS(y, sm.add_constant(x)).fit().pvalues[1], slope


def languages_study(random, trainings, effect, seed):
    """One study of languages, in one training or several."""
    x = random.normal(size=N).repeat(trainings) + 0.5 * random.normal(size=N * trainings)
    own, noise = random.normal(size=N).repeat(trainings), random.normal(size=N * trainings)
    y = own + noise if trainings > 1 else noise * (0.5 + np.abs(x))
    slope = effect
    rows = pd.DataFrame(
        {"language": np.arange(N).repeat(trainings).astype(str), "x": x, "gain": y + slope * x}
    )
    found = regress_languages(rows, "gain", predictors=["x"], draws=199, seed=seed)
    return found, sm.OLS(y + slope * x, sm.add_constant(x)).fit().pvalues[1], slope


def run(study, studies):
    """Plain p <= .05, permuted p <= .05, coverage of jackknife and mixed model, worth."""
    told = []
    for seed in range(studies):
        found, plain, slope = study(seed)
        told.append(
            (
                plain <= 0.05,
                found.p[0] <= 0.05,
                found.low[0] <= slope <= found.high[0],
                found.mixed_low[0] <= slope <= found.mixed_high[0]
                if np.isfinite(found.mixed[0])
                else np.nan,
                found.worth[0],
            )
        )
    columns = np.array(told, float).T
    return [*(np.nanmean(c) if np.isfinite(c).any() else np.nan for c in columns[:4]),
            np.median(columns[4])]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("pairs", "languages"))
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    sys.stdout.write(
        "study                        effect  p<=.05: plain ours  held: jack  mixed  worth\n"
    )
    for effect in (0.0, 0.5):
        for sort in () if options.only == "languages" else ("distance", "same"):
            for share in (0.0, 0.5, 0.8):
                numbers = run(
                    lambda seed, share=share, sort=sort, effect=effect: pairs_study(
                        random, share, effect, sort, seed
                    ),
                    options.studies,
                )
                name = f"pairs, {sort}, share {share}"
                sys.stdout.write(
                    f"{name:28} {effect:6} " + " ".join(f"{x:9.3f}" for x in numbers) + "\n"
                )
                sys.stdout.flush()
        for trainings in () if options.only == "pairs" else (1, 3):
            numbers = run(
                lambda seed, trainings=trainings, effect=effect: languages_study(
                    random, trainings, effect, seed
                ),
                options.studies,
            )
            name = f"languages, {trainings} trainings"
            sys.stdout.write(
                f"{name:28} {effect:6} " + " ".join(f"{x:9.3f}" for x in numbers) + "\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
