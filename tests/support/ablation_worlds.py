"""Made-up ablation matrices whose true effects are known: skewed, of unequal texts, any design.

A text of t tokens has an expected NLL a token of (t / 40)^-0.2, so long texts are easier. A set
adds to it ``level * item * noise`` a token, a random set ``level * item * set * noise``; item, set
and noise are gamma variables of mean 1 and standard deviation 0.5. So random sets differ among each
other as much as items do.

Designs: ``"fresh"``, each item meets random sets of its own (as `ablation_matrix` does);
``"shared"``, item d meets sets d, d + 20, ... of the same 20 (as it did before).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lensneurons.experiments.ablation_effects import AblationMatrix

SETS = 20  # random sets of a control, spread over the items
LEVELS = {"own": 0.4, "others": 0.05, "control own": 0.3, "control others": 0.1}


def gamma(random, *shape):
    return random.gamma(4, 1 / 4, shape)


def draw_tokens(random, *shape):
    return np.ceil(30 * random.lognormal(0, 0.6, shape))


def difficulty(tokens):
    return (tokens / 40) ** -0.2


@cache
def the_scale():
    """Expected NLL over expected tokens: what a level has to be multiplied by."""
    tokens = draw_tokens(np.random.default_rng(0), 2_000_000)
    return (tokens * difficulty(tokens)).sum() / tokens.sum()


def set_of_items(random, items, rows, design):
    """Strength of the random sets that each item meets, [row, item, set]."""
    each = -(-SETS // items)
    if design == "fresh":
        return gamma(random, rows, items, each)
    met = (np.arange(items)[:, None] + items * np.arange(each)) % SETS
    return gamma(random, rows, SETS)[:, met]


def build(effect, control, weight, *, metric="nll", base=None, draws=SETS):
    """A matrix of one setting and one match from values [row, item, column], rows first columns."""
    rows, items, k = effect.shape
    names = tuple(f"l{i}" for i in range(k))
    flat = (rows, items * k)
    return AblationMatrix(
        rows=names[:rows],
        languages=names,
        classes=("specific",),
        matches=("own",),
        metric=metric,
        base=np.ones(items * k) if base is None else base.ravel(),
        effect=effect.reshape(1, *flat),
        control=control.reshape(1, 1, *flat),
        weight=weight.ravel().astype(float),
        language=np.tile(np.arange(k), items),
        item_ids=tuple(f"i{i}" for i in range(items) for _ in range(k)),
        neurons_by_layer=np.ones((1, rows, 1), np.int64),
        identified=names,
        rates=np.full((2, 1, rows, 1, k), 0.1),
        draws=draws,
    )


def nll_matrix(random, items, *, k=4, design="fresh", levels=LEVELS, placebo=False, blur=0.0):
    """A matrix of k languages.

    With `placebo` the set is one more of the random sets; `blur` is the standard deviation of what
    else moves the effects of the set, up or down, in nats a token.
    """
    tokens = draw_tokens(random, items, k)
    own = np.eye(k, dtype=bool)[:, None]
    scale = tokens * difficulty(tokens) * gamma(random, items, 1)
    sets = set_of_items(random, items, k, design)
    set_level, chance = (
        np.where(own, levels[head + "own"], levels[head + "others"]) for head in ("", "control ")
    )
    if placebo:
        set_level = chance * gamma(random, k, 1, 1)
    effect = set_level * scale * gamma(random, k, items, k)
    effect += blur * tokens * random.normal(size=effect.shape)
    noise = gamma(random, *sets.shape, k)
    control = chance * scale * (sets[..., None] * noise).mean(axis=2)
    return build(effect, control, tokens, draws=sets.shape[2] * items)


def answer_matrix(random, items, *, k=4, right=0.6, lost=(0.3, 0.02), control_lost=(0.2, 0.02)):
    """Accuracy: a set turns right answers wrong in a share of items, on the own and on others.

    A fifth as many wrong ones get right. Items differ in how easily they are lost.
    """
    own = np.eye(k, dtype=bool)[:, None]
    base = random.random((items, k)) < right
    ease = gamma(random, items, 1)

    def answers(chances, *shape):
        share = np.minimum(np.where(own, *chances) * ease, 1).reshape(
            k, items, *[1] * len(shape), k
        )
        share = np.where(base.reshape(items, *[1] * len(shape), k), share, share / 5)
        return base.reshape(items, *[1] * len(shape), k) ^ (
            random.random((k, items, *shape, k)) < share
        )

    each = -(-SETS // items)
    changed = answers(lost).astype(float) - base
    chance = answers(control_lost, each).mean(axis=2) - base
    return build(
        changed,
        chance,
        np.ones((items, k)),
        metric="accuracy",
        base=base.astype(float),
        draws=each * items,
    )


def answer_truth(right, lost):
    """Expected change of accuracy where a share of right answers is lost."""
    ease = np.random.default_rng(0).gamma(4, 1 / 4, 1_000_000)
    share = float(np.minimum(lost * ease, 1).mean())
    return -right * share + (1 - right) * share / 5
