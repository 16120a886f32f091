"""One progress bar for a training of Hugging Face's, in place of its own lines and bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(steps: int, shown: bool) -> Iterator[Any]:
    """A bar of so many steps; the bars of ``datasets`` stay away meanwhile.

    Args:
        steps: in all.
        shown: whether to show it.
    """
    from datasets.utils.logging import (
        disable_progress_bar,
        enable_progress_bar,
        is_progress_bar_enabled,
    )
    from tqdm.auto import tqdm

    before = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        with tqdm(total=steps, desc="align", unit="step", disable=not shown) as bar:
            yield bar
    finally:
        if before:
            enable_progress_bar()


def show_progress(trainer: Any, bar: Any) -> None:
    """Let a trainer move a bar, with the last loss, margin and accuracy beside it.

    Args:
        trainer: of Hugging Face, or of TRL.
        bar: of tqdm.
    """
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    class Bar(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(state.global_step - bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            names = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "right"}
            found = {ours: f"{logs[name]:.3f}" for name, ours in names.items() if name in logs}
            bar.set_postfix(found)

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())
