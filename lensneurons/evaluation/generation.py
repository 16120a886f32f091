"""What a model answers: texts written after prompts, greedily or sampled, in batches.

The model writes as it is. An ablation or a steering vector acts on the prompt and on each new token
(keys and values are cached: a hook first sees the prompt, padding included, and then one token at a
time). Without hooks the model's hook points are left out, which changes nothing. What the model's
own ``generation_config`` asks for (penalties, top-p, a temperature) is put aside.

Prompts are encoded as the tokenizer encodes any text, but without the special tokens that it puts
behind a text. They are sorted by length, the longest first, and padded on the left. A text ends
with one of the model's end tokens.

Sampling adds Gumbel noise to ``logits / temperature`` and takes the largest, which draws from the
softmax. The noise depends only on the seed and on the place of the prompt in the list, so a text
does not depend on its batch, and two states of a model (before and after an ablation) are compared
under the same noise.

>>> generate(model, ["2 + 3 ="], max_new_tokens=8)                       # doctest: +SKIP
[' 5']

A text also ends before the first of the `stop` strings: a base model goes on after its answer.
Worked examples may stand before each prompt (`lensneurons.evaluation.shots`).

What it does not do: beams, several texts a prompt (give it
several times). Batches differ from single prompts by rounding (1e-6 in fp32, more in half
precision), which can turn a nearly even choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensneurons.corpora.corpus import ParallelCorpus
from lensneurons.errors import LensNeuronsError
from lensneurons.evaluation.shots import fingerprint_of, prompts_after
from lensneurons.models.family import context_length, input_device, model_family
from lensneurons.models.forward import forward_path
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.running import require_finite, runs_model
from lensneurons.models.views import writing_view
from lensneurons.options import plain_options
from lensneurons.tokens.beginnings import doubled, warn_doubled
from lensneurons.tokens.chat import Template, chat_prompts, refuse_system_alone

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 512  # new tokens of a text where nobody says how many
ROUND = 16  # new tokens until texts that have ended leave their batch


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a model writes; everything that decides a text beside model and prompt.

    Attributes:
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
        stop: a text is cut before the first of these strings, and ends there.
        shots: fingerprint of the examples before each prompt; empty without.
        writer: name of what wrote in place of the model (`lensneurons.evaluation.writers`), which
            decides tokens, temperature and seed itself; empty where the model wrote.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    batch_tokens: int = 16384
    stop: Sequence[str] = ()
    shots: str = ""
    writer: str = ""

    def __post_init__(self) -> None:
        given = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(isinstance(one, str) and one for one in given):
            raise LensNeuronsError(
                f"stop={self.stop!r}: give strings of at least one character, such as ['\\n\\n']"
            )
        object.__setattr__(self, "stop", given)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise LensNeuronsError(f"max_new_tokens={self.max_new_tokens}: write at least 1 token")
        if not 0 <= self.temperature < float("inf"):
            raise LensNeuronsError(
                f"temperature={self.temperature}: give 0 for the likeliest text, more to sample"
            )
        if self.seed < 0:
            raise LensNeuronsError(f"seed={self.seed}: seeds are 0 or more")
        if self.batch_tokens < 1:
            raise LensNeuronsError(f"batch_tokens={self.batch_tokens} holds nothing; give more")

    def plan(self) -> dict[str, Any]:
        """All that decides a text, for a run folder; texts in it only if they are given."""
        decided = asdict(self)
        del decided["batch_tokens"]  # decides memory and speed, and no text but by rounding
        return {k: v for k, v in decided.items() if v or k not in ("stop", "shots", "writer")}

    def cut(self, text: str) -> str | None:
        """What stands before the first stop string; None for a text without one."""
        places = [place for one in self.stop if (place := text.find(one)) >= 0]
        return text[: min(places)] if places else None


@dataclass(frozen=True, slots=True)
class Response:
    """One text that a model wrote.

    Attributes:
        text: what stands after the prompt, without special tokens.
        finished: whether it ended with an end token or a stop string, not at `max_new_tokens`.
        tokens: tokens written, the end token and those of a stop string included; 0 where a writer
            wrote, which does not say.
    """

    text: str
    finished: bool
    tokens: int


@plain_options
@runs_model
def generate(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_tokens: int = 16384,
    stop: Sequence[str] = (),
    shots: ParallelCorpus | None = None,
    template: Template | None = None,
    system: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> list[str]:
    """Let a model go on from prompts.

    Args:
        model: what `load_model` returns, or any TransformerLens model. Hooks on it act.
        prompts: what to go on from.
        max_new_tokens: most tokens of a text; None for 512, or less where the context has less.
        temperature: 0 always takes the likeliest token; else tokens are drawn.
        seed: of the drawing; the same call writes the same texts.
        batch_tokens: largest rectangle, prompts times (longest prompt + new tokens).
        stop: a text is cut before the first of these strings that the model writes, and ends
            there.
        shots: worked examples in one language, which stand before every prompt.
        template: ``"chat"`` makes each prompt the user's turn of the model's own chat template;
            None goes on from the prompts as they are.
        system: the system prompt of the chat.
        tokenizer: encodes the prompts; by default the model's own, as it was saved.
        progress: show one progress bar, in prompts.

    Returns:
        The text after each prompt, without special tokens, in the order of the prompts.

    Raises:
        LensNeuronsError: no prompts, one without tokens or too long for the context, or an option
            out of its range.
        CorpusError: examples in several languages, one without a prompt or a response, or one of
            the prompts among them.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read or has no chat
            template.
    """
    decoding = Decoding(
        max_new_tokens, temperature, seed, batch_tokens, stop, fingerprint_of(shots)
    )
    refuse_system_alone(template, system)
    if shots is not None or template is not None:
        tokenizer = tokenizer or original_tokenizer(model)
        if shots is not None:
            prompts = prompts_after(shots, prompts, tokenizer)
        if template is not None:  # examples and prompt are one turn of the user
            prompts = chat_prompts(tokenizer, prompts, system=system)
    responses = write_responses(model, prompts, decoding, tokenizer=tokenizer, progress=progress)
    return [response.text for response in responses]


def write_responses(
    model: Any,
    prompts: Sequence[str],
    decoding: Decoding,
    *,
    first_row: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> list[Response]:
    """Like `generate`, but also tell how each text ended.

    A longer list of prompts may be written in pieces: noise depends on the place of a prompt in the
    list, and `first_row` is the place of the first one.

    Raises:
        LensNeuronsError: no prompts, one without tokens, or one too long for the context.
        ModelError: not a TransformerLens model, or its tokenizer cannot be read.
    """
    from tqdm.auto import tqdm

    hooked = model_family(model) == "hooked"
    tokenizer = tokenizer or original_tokenizer(model)
    ids = encode_prompts(prompts, tokenizer)
    new_tokens = fit_context(model, [len(row) for row in ids], decoding.max_new_tokens)
    decoding = replace(decoding, max_new_tokens=new_tokens)
    written: dict[int, Response] = {}
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    with tqdm(total=len(ids), unit="prompt", disable=not progress, desc="write") as bar:
        while order:
            length = len(ids[order[0]])
            size = max(1, decoding.batch_tokens // (length + new_tokens))
            if hooked:  # wants prompts of one length, and one prompt if tokens are drawn
                alike = sum(len(ids[row]) == length for row in order)
                size = 1 if decoding.temperature else min(size, alike)
            rows, order = order[:size], order[size:]
            places = [first_row + row for row in rows]
            batch = write_rows(model, tokenizer, [ids[row] for row in rows], places, decoding)
            written |= dict(zip(rows, batch, strict=True))
            bar.update(len(rows))
    return [written[row] for row in range(len(ids))]


def encode_prompts(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Encode prompts with the tokenizer's own rule for BOS, never twice, and nothing behind them.

    Raises:
        LensNeuronsError: there are no prompts, or one has no tokens.
    """
    if isinstance(prompts, str) or not prompts:
        raise LensNeuronsError(f"prompts={prompts!r}: give a list of one text or more")
    encoded = tokenizer(list(prompts), return_special_tokens_mask=True)
    ids, left_out = [], ""
    for row, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        last = max((place for place, special in enumerate(mask) if not special), default=0)
        first = doubled(row, mask)
        left_out = str(tokenizer.decode(row[:first])) if first else left_out
        ids.append(row[first : last + 1])
    warn_doubled(left_out)
    if empty := [number for number, row in enumerate(ids) if not row]:
        raise LensNeuronsError(
            f"prompt {empty[0]} of {len(ids)} has no tokens: this tokenizer begins texts with "
            "nothing, so give at least one character"
        )
    return ids


def fit_context(model: Any, lengths: Sequence[int], max_new_tokens: int | None) -> int:
    """How many tokens may be written after the longest prompt.

    Raises:
        LensNeuronsError: the longest prompt and `max_new_tokens` (or one token) exceed the context.
    """
    context, longest = context_length(model), max(lengths)
    wanted = 1 if max_new_tokens is None else max_new_tokens
    if longest + wanted > context:
        raise LensNeuronsError(
            f"prompt {list(lengths).index(longest)} has {longest} tokens; with {wanted} new ones "
            f"that is beyond the model's context of {context}: lower max_new_tokens, give fewer "
            "shots, or leave long prompts out"
        )
    return min(LONGEST, context - longest) if max_new_tokens is None else max_new_tokens


def write_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[list[int]],
    rows: Sequence[int],
    decoding: Decoding,
) -> list[Response]:
    """Write one batch of encoded prompts; hooks act, and each row may have its own.

    `rows` are the places of the prompts in the list of all prompts, which give their noise;
    ``decoding.max_new_tokens`` is what `fit_context` gives.
    """
    config = getattr(getattr(model, "original_model", None), "generation_config", None)
    own = getattr(config, "eos_token_id", None)
    given: list[Any] = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    ends = sorted({end for end in given if end is not None})
    responses = []
    for new in write_batch(model, ids, rows, decoding, ends, tokenizer):
        end = next((place for place, token in enumerate(new) if token in ends), None)
        text = _decode(tokenizer, new[:end])
        cut = decoding.cut(text)
        finished = end is not None or cut is not None
        count = len(new) if end is None else end + 1
        if cut is not None:  # what was written behind it, beside longer texts, says nothing
            count = next(
                n
                for n in range(1, count + 1)
                if decoding.cut(_decode(tokenizer, new[:n])) is not None
            )
        responses.append(Response(text if cut is None else cut, finished, count))
    return responses


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def write_batch(
    model: Any,
    ids: Sequence[list[int]],
    rows: Sequence[int],
    decoding: Decoding,
    ends: list[int],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[list[int]]:
    """The new token ids of one batch; what follows one of the `ends` in a row has no meaning.

    Writing ends early once every row has an end token or, where a tokenizer is given, a stop
    string. A bridge writes by Hugging Face's `generate`. With hooks on it the modules are its
    components, so hooks fire; without, they are the plain ones (`writing_view`), and rows that have
    ended leave the batch every `ROUND` tokens, so a long text does not make the others go on.
    """
    from transformers import GenerationConfig

    states = [np.random.SeedSequence([decoding.seed, row]) for row in rows]
    seeds = [int(state.generate_state(1, np.uint64)[0] >> 1) for state in states]
    if model_family(model) == "hooked":
        return _write_hooked(model, ids, seeds[0], decoding, ends)
    pad = ends[0] if ends else 0
    width = max(map(len, ids))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    noise = [_Noise(seeds, decoding.temperature)] if decoding.temperature else []
    stopping = [_Stopped(decoding, tokenizer, width)] if decoding.stop and tokenizer else []
    hugging_face, device = writing_view(model), input_device(model)
    tokens, mask = tokens.to(device), mask.to(device)
    options: dict[str, Any] = {
        "do_sample": False,
        "logits_processor": [_finite, *noise],
        "stopping_criteria": stopping,
        "eos_token_id": ends or None,
        "pad_token_id": pad,
        "return_dict_in_generate": True,
    }
    most = decoding.max_new_tokens or LONGEST
    # Hooks may have a condition for each row, and are promised the prompt, then single tokens.
    step = ROUND if forward_path(model) == "native" else most
    written: list[list[int]] = [[] for _ in ids]
    going, cache = list(range(len(ids))), None
    own, hugging_face.generation_config = hugging_face.generation_config, GenerationConfig()
    try:
        while True:
            left = most - (tokens.shape[1] - width)
            options |= {"max_new_tokens": min(step, left), "past_key_values": cache}
            found = hugging_face.generate(tokens, attention_mask=mask, **options)
            tokens, cache = found.sequences, found.past_key_values
            mask = torch.nn.functional.pad(mask, (0, tokens.shape[1] - mask.shape[1]), value=1)
            for row, new in zip(going, tokens[:, width:].tolist(), strict=True):
                written[row] = new
            ended = torch.isin(tokens[:, width:], torch.tensor(ends, device=device)).any(1)
            for one in stopping:
                ended |= one(tokens, None)
            if ended.all() or tokens.shape[1] - width == most:
                break
            if ended.any() and _has_rows(cache):
                kept = torch.nonzero(~ended)[:, 0]
                tokens, mask, going = tokens[kept], mask[kept], [going[k] for k in kept.tolist()]
                cache.batch_select_indices(kept)
                for one in noise:
                    one.keep(kept.tolist())
    finally:
        hugging_face.generation_config = own
    return written


def _has_rows(cache: Any) -> bool:
    """Whether rows can be taken out of a cache of keys and values."""
    layers = getattr(cache, "layers", [None])
    return all(hasattr(layer, "batch_select_indices") for layer in layers)


def _finite(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The logits as they are; raise where the model computed none (their argmax would be id 0)."""
    require_finite(scores, "the logits")
    return scores


class _Stopped:
    """Which rows have written a stop string, by their last tokens: each holds a byte or more."""

    def __init__(self, decoding: Decoding, tokenizer: PreTrainedTokenizerBase, width: int) -> None:
        self.decoding, self.tokenizer, self.width = decoding, tokenizer, width
        self.window = 8 + max(len(one.encode("utf-8", "replace")) for one in decoding.stop)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Bool [batch]."""
        last = input_ids[:, self.width :][:, -self.window :].tolist()
        done = [self.decoding.cut(_decode(self.tokenizer, row)) is not None for row in last]
        return torch.tensor(done, device=input_ids.device)


class _Noise:
    """Gumbel noise on the logits of each row, from a generator of its own."""

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def keep(self, rows: Sequence[int]) -> None:
        """Leave out all other rows."""
        self.generators = [self.generators[row] for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logits [batch, vocabulary], float32, whose largest is the token drawn."""
        drawn = torch.empty(scores.shape)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - drawn.log().to(scores.device)


def _write_hooked(
    model: Any, ids: Sequence[list[int]], seed: int, decoding: Decoding, ends: list[int]
) -> list[list[int]]:
    """Write by the own `generate` of a `HookedTransformer`, which pads and draws in its own way."""
    device = input_device(model)
    tokens = torch.tensor(ids, device=device)
    bos = getattr(model.tokenizer, "bos_token_id", None)
    sampling = {"temperature": decoding.temperature} if decoding.temperature else {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(seed)
        written = model.generate(
            tokens,
            max_new_tokens=decoding.max_new_tokens,
            stop_at_eos=bool(ends),
            eos_token_id=ends or None,
            do_sample=bool(sampling),
            prepend_bos=bool((tokens[:, 0] == bos).all()) if bos is not None else False,
            return_type="tokens",
            verbose=False,
            # Without a tokenizer 3.9 makes no mask, and learned positions behind a cache are wrong.
            use_past_kv_cache=model.tokenizer is not None,
            **sampling,
        )
    return written[:, tokens.shape[1] :].tolist()
