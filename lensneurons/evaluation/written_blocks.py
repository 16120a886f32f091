"""Blocks of prompts that workers write: what travels to them, and what comes back.

    prompts -> blocks with the place of their first prompt -> workers -> responses of each block

Drawn noise depends on the place of a prompt in the list of all prompts, so a block carries its
place and gets the same texts from any worker. `accuracy` and `respond` write this way where they
are given an engine (`lensneurons.engines`); blocks go into the run folder as they come back.

>>> for first, texts in written_by_workers(engine, model, work, {0: prompts}):  # doctest: +SKIP
...     keep(first, texts)

What this does not do: let hooks act. They do not travel, so a model with hooks is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensneurons.engines.choice import RayEngine
from lensneurons.engines.pool import pool
from lensneurons.evaluation.generation import Decoding, Response, write_responses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Writing:
    """What a worker does: writes a block of prompts, whose first has a place."""

    decoding: Decoding
    tokenizer: PreTrainedTokenizerBase

    def on(self, model: Any) -> Callable[[tuple[int, Sequence[str]]], list[Response]]:
        """The function that writes a block."""

        def write(block: tuple[int, Sequence[str]]) -> list[Response]:
            first, prompts = block
            options = {"first_row": first, "tokenizer": self.tokenizer, "progress": False}
            return write_responses(model, prompts, self.decoding, **options)

        return write


def written_by_workers(
    engine: RayEngine, model: Any, work: Writing, blocks: Mapping[int, Sequence[str]]
) -> Iterator[tuple[int, list[Response]]]:
    """Yield the place of the first prompt of each block, and its responses, as they are done.

    Args:
        engine: the workers.
        model: whose replicas write.
        work: how.
        blocks: place of the first prompt of a block among all prompts, to its prompts.

    Raises:
        LensNeuronsError: a worker raised it, or died too often; Ray has too little room.
        ModelError: a worker's model is another one.
    """
    if not blocks:
        return
    firsts = list(blocks)
    names = [f"prompts {first} to {first + len(blocks[first]) - 1}" for first in firsts]
    with pool(engine, model) as hands:
        payload = [(first, list(blocks[first])) for first in firsts].__getitem__
        for place, written in hands.run(work, names, payload):
            yield firsts[place], written
