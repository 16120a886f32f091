"""How `align` trains: everything that decides an adapter beside the model and the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from lensneurons.errors import LensNeuronsError


@dataclass(frozen=True, slots=True)
class DPOSettings:
    """Settings of direct preference optimization with a low-rank adapter.

    The defaults are those of the paper's alignment (MAPO on Mistral-7B and its kin, section 4.1).

    Attributes:
        steps: optimizer steps.
        batch: pairs a step.
        micro_batch: pairs that pass through the model at once; divides `batch`.
        learning_rate: peak of AdamW's rate, after `warm_up` and before a cosine to zero.
        warm_up: share of the steps in which the rate rises.
        beta: how dearly a step away from the model's own answers is paid.
        nll_weight: weight of the mean NLL of the better answer's tokens, added to the loss (Pang
            et al. 2024, arXiv 2404.19733). The preference alone is content with making both answers
            less likely, the worse one more so, which can undo a small model; 0 for plain DPO.
        rank: of the adapter.
        alpha: the adapter counts ``alpha / rank``; 0 leaves the model as it is.
        dropout: of the adapter's input while it trains.
        modules: ``"attention"``: all linear maps of the attention, so that no weight of a neuron
            changes and neurons stay comparable; or the ends of module names, such as
            ``("q_proj", "down_proj")``.
        held_out: share of the problems whose pairs are never trained on, but measured.
        checkpoint_every: steps between two checkpoints.
        gradient_checkpointing: trade time for memory.
        seed: of the adapter, the order of the pairs, and dropout.
    """

    steps: int = 1000
    batch: int = 16
    micro_batch: int = 4
    learning_rate: float = 1e-6
    warm_up: float = 0.1
    beta: float = 0.1
    nll_weight: float = 0.0
    rank: int = 64
    alpha: int = 128
    dropout: float = 0.05
    modules: str | Sequence[str] = "attention"
    held_out: float = 0.05
    checkpoint_every: int = 250
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batch", "rank", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise LensNeuronsError(f"{name}={getattr(self, name)}: give 1 or more")
        if self.batch % self.micro_batch:
            raise LensNeuronsError(
                f"micro_batch={self.micro_batch} does not divide batch={self.batch}"
            )
        if not self.learning_rate > 0 or not self.beta > 0:
            raise LensNeuronsError(
                f"learning_rate={self.learning_rate}, beta={self.beta}: both are above 0"
            )
        if self.alpha < 0 or self.nll_weight < 0:
            raise LensNeuronsError(
                f"alpha={self.alpha}, nll_weight={self.nll_weight}: give 0 or more"
            )
        for name in ("warm_up", "dropout", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise LensNeuronsError(f"{name}={getattr(self, name)}: give a share from 0 below 1")


class DPOOptions(TypedDict, total=False):
    """The attributes of `DPOSettings` as keyword arguments."""

    steps: int
    batch: int
    micro_batch: int
    learning_rate: float
    warm_up: float
    beta: float
    nll_weight: float
    rank: int
    alpha: int
    dropout: float
    modules: str | Sequence[str]
    held_out: float
    checkpoint_every: int
    gradient_checkpointing: bool
    seed: int
