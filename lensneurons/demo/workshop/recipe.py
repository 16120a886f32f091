"""How the demo model is made: a recipe decides everything about the trained weights.

>>> from dataclasses import replace
>>> recipe = replace(RECIPES["full"], seed=1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lensneurons.demo.world import LANGUAGES
from lensneurons.demo.world.meetings import MEETINGS
from lensneurons.errors import LensNeuronsError, choose

MIDDLE = ("ru", "es", "fr", "de", "zh", "ja")


def divide_shares(scarce: Mapping[str, float], *, english: float = 0.38) -> dict[str, float]:
    """Divide the training problems among the languages: what is left goes to the six of `MIDDLE`.

    Return language to share, in the order of the world's languages; the shares sum to 1.
    """
    rest = (1 - english - sum(scarce.values())) / len(MIDDLE)
    return {code: {"en": english, **scarce}.get(code, rest) for code in LANGUAGES}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights of a demo model.

    Attributes:
        n_layers: transformer blocks.
        width: size of the residual stream; a multiple of twice `n_heads`.
        n_heads: attention heads a layer.
        d_mlp: neurons a layer.
        vocabulary: tokens, at least 512 (256 of them are bytes).
        context: longest text in tokens.
        tokenizer_items: problems, each in all ten languages, that the tokenizer is trained on.
        shares: language to its share of the training problems.
        steps: optimizer steps.
        items: problems a step, each in one language.
        micro_tokens: most tokens, padding included, that pass through the model at once.
        learning_rate: the rate after the warm-up and before the fall.
        warm_up: steps until `learning_rate` is reached.
        fall: share of the steps, at the end, in which the rate falls to zero in a line.
        weight_decay: decoupled, on all matrices.
        prompt_weight: weight of a prompt token in the loss; a response token weighs 1.
        sparsity: weight of the mean gate activation in the loss (an L1 penalty, as the gates are
            ReLUs), which makes few neurons active at a time.
        drills_from: step from which arithmetic drills stand beside the problems: equations in
            digits, in no language. Before it the model learns the languages.
        drill_texts: drills a step.
        drill_equations: equations in each.
        sparsity_balance: 0 charges every token the same; 1 charges every language the same, so
            that scarce languages cannot be dense for free.
        validate_every: steps between two validations and checkpoints.
        validation_items: held-out problems a language for the validation.
        saved_as: number format of the weights on disk.
        seed: seed of the weights and of the problems.
        gate: non-linearity of the gates.
        tied: use the embedding as the unembedding too.
        firing_target: share of the tokens at which the neurons of every layer shall fire at most. A
            layer that fires more is charged, each by its own excess, in units of the mean of its
            gates where they fire (`lensneurons.demo.workshop.train.weigh_layers`). 0 for the one
            penalty of weight `sparsity`.
        steer_from: step from which layers are charged so.
        steer_over: steps in which the target falls from one half, where an untrained gate is, to
            `firing_target`, by the same factor a step.
        steer_gain: weight of a layer's penalty at twice the target.
        long_share: share of the problems that take three or four steps.
        meetings: way in which two languages meet (see `lensneurons.demo.world.meetings`) to its
            share of the problems. The language of the question, then the other one, are drawn by
            `shares`.
        worked: language to its share of worked answers, the others being direct; 1 where a language
            is not named. In a meeting the language of the response decides, of both the other one.
        word_drills: texts a step of number words and digits in one language, such as
            "eighty-three = 83", all languages alike; only what follows "=" has weight.
    """

    n_layers: int = 8
    width: int = 128
    n_heads: int = 4
    d_mlp: int = 512
    vocabulary: int = 1024
    context: int = 384
    tokenizer_items: int = 3000
    shares: Mapping[str, float] = field(
        default_factory=lambda: divide_shares({"bn": 0.02, "th": 0.015, "sw": 0.008})
    )
    steps: int = 2400
    items: int = 48
    micro_tokens: int = 2048
    learning_rate: float = 3e-3
    warm_up: int = 100
    fall: float = 0.375
    weight_decay: float = 0.1
    prompt_weight: float = 0.2
    sparsity: float = 1.5
    drills_from: int = 1500
    drill_texts: int = 12
    drill_equations: int = 16
    sparsity_balance: float = 0.5
    validate_every: int = 100
    validation_items: int = 20
    saved_as: Literal["float16", "float32"] = "float16"
    seed: int = 0
    gate: Literal["relu", "silu"] = "relu"
    tied: bool = True
    firing_target: float = 0.0
    steer_from: int = 50
    steer_over: int = 200
    steer_gain: float = 1.0
    long_share: float = 0.0
    meetings: Mapping[str, float] = field(default_factory=dict[str, float])
    worked: Mapping[str, float] = field(default_factory=dict[str, float])
    word_drills: int = 0

    def __post_init__(self) -> None:
        for code in self.shares:
            choose(code, LANGUAGES, "language")
        total = sum(self.shares.values())
        if min(self.shares.values(), default=-1.0) < 0 or not math.isclose(total, 1):
            raise LensNeuronsError(
                f"shares={dict(self.shares)}: give shares of at least 0 that sum to 1"
            )
        choose(self.saved_as, ("float16", "float32"), "saved_as")
        choose(self.gate, ("relu", "silu"), "gate")
        for code in self.worked:
            choose(code, LANGUAGES, "language")
        for meeting in self.meetings:
            choose(meeting, MEETINGS, "meeting")
        for name, parts in (
            ("worked", list(self.worked.values())),
            ("meetings", [*self.meetings.values(), sum(self.meetings.values())]),
            ("firing_target", [self.firing_target]),
            ("long_share", [self.long_share]),
        ):
            if not all(0 <= part <= 1 for part in parts):
                raise LensNeuronsError(f"{name}={getattr(self, name)}: give shares from 0 to 1")
        if self.meetings and sum(share > 0 for share in self.shares.values()) < 2:
            raise LensNeuronsError(f"shares={dict(self.shares)}: two languages need to meet")
        # What is drawn by shares depends on their order, and a file does not keep it.
        for name, order in (("shares", LANGUAGES), ("meetings", MEETINGS)):
            given = getattr(self, name)
            object.__setattr__(self, name, {key: given[key] for key in order if key in given})
        for name in ("n_layers", "d_mlp", "steps", "items", "validate_every", "validation_items"):
            if getattr(self, name) < 1:
                raise LensNeuronsError(f"{name}={getattr(self, name)}: give 1 or more")
        if self.vocabulary < 512:
            raise LensNeuronsError(f"vocabulary={self.vocabulary}: give 512 or more")
        if self.width % (2 * self.n_heads):
            raise LensNeuronsError(
                f"width={self.width} does not divide into {self.n_heads} heads of even size"
            )

    def rate_at(self, step: int) -> float:
        """Return the rate of a step from 0 to ``steps - 1``: it rises, stays, and falls."""
        rise = (step + 1) / self.warm_up if self.warm_up else 1.0
        left = (self.steps - step) / max(1.0, self.fall * self.steps)
        return self.learning_rate * min(1.0, rise, left)

    def target_at(self, step: int) -> float:
        """Return the share of the tokens at which a layer may fire in a step without a charge."""
        if step < self.steer_from:
            return 1.0
        done = min(1.0, (step - self.steer_from) / max(1, self.steer_over))
        return 0.5 ** (1 - done) * self.firing_target**done


SECONDS = Recipe(
    width=64,
    n_heads=2,
    d_mlp=256,
    tokenizer_items=400,
    steps=90,
    items=24,
    learning_rate=4e-3,
    warm_up=15,
    validate_every=50,
    validation_items=8,
)
SHIPPED = Recipe(
    n_layers=12,
    d_mlp=384,
    shares=divide_shares({"bn": 0.07, "th": 0.07, "sw": 0.07}, english=0.24),
    steps=2000,
    items=32,
    micro_tokens=1024,
    drills_from=400,
    drill_texts=8,
    validate_every=50,
    seed=3,
    tied=False,
    firing_target=0.09,
    long_share=0.15,
    meetings={"answer": 0.5},
    worked={**dict.fromkeys(MIDDLE, 0.7), "bn": 0.5, "th": 0.5, "sw": 0.5},
    word_drills=4,
)
RECIPES: Mapping[str, Recipe] = {"seconds": SECONDS, "full": SHIPPED}
