"""What the questions of the demo world's short families ask, written down apart from its code."""

from __future__ import annotations

from collections.abc import Callable

ASKED: dict[str, Callable[..., int]] = {
    "gain more_than age_older age_future time_total": lambda a, b: a + b,
    "loss difference distance_left": lambda a, b: a - b,
    "times groups price speed": lambda a, b: a * b,
    "sharing packing pages": lambda a, b: a // b,
    "change": lambda price, paid: paid - price,
    "two_step_buy": lambda had, boxes, each: had + boxes * each,
    "gain_loss": lambda had, got, gave: had + got - gave,
    "spend": lambda purse, count, price: purse - count * price,
    "total_three": lambda a, b, c: a + b + c,
}
SOLVERS = {family: solve for families, solve in ASKED.items() for family in families.split()}
