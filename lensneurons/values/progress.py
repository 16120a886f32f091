"""Progress bars: one way for all loops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Step = TypeVar("Step")


def with_bar(
    steps: Iterable[Step], label: str, unit: str, *, shown: bool, total: int | None = None
) -> Iterable[Step]:
    """Go through steps with a progress bar.

    Args:
        steps: what to go through.
        label: what stands in front of the bar.
        unit: what one step is.
        shown: False for no bar.
        total: how many steps there are; None where `steps` knows.
    """
    from tqdm.auto import tqdm

    return tqdm(steps, desc=label, unit=unit, total=total, disable=not shown)
