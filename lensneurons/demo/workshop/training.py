"""Training of the demo model: from a recipe to a Hugging Face folder, stopped and resumed at will.

    draw problems of the step -> forward and backward, batch by batch -> optimizer -> next step

The loss is the mean negative log-likelihood of the tokens plus a penalty on the mean gate
activation. Response tokens weigh 1 and prompt tokens less: most of a prompt is chance (names,
numbers), while the response follows from it. Prompts still count, so that the model is a language
model of both and its neurons know each language's grammar.

The same recipe on the same machine with the same number of threads gives the same weights, however
often it was stopped.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lensneurons.demo.workshop.model import build_model, run_blocks
from lensneurons.demo.workshop.optimizer import Optimizer
from lensneurons.demo.workshop.problem_batches import (
    Text,
    TextBatch,
    draw_held_out,
    draw_step,
    make_batches,
)
from lensneurons.demo.workshop.recipe import Recipe
from lensneurons.demo.workshop.tokenizer import train_tokenizer
from lensneurons.errors import StorageError
from lensneurons.values.files import load_arrays, replacing, save_arrays, save_json

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

CHECKPOINT = "checkpoint.safetensors"
LOG = "training.jsonl"
RECIPE = "recipe.json"
KIND = "demo training"
# Longest gradient, as a multiple of its usual length, that one step may follow.
CLIP = 1.0

logger = logging.getLogger(__name__)


@dataclass
class _Run:
    """A training under way."""

    recipe: Recipe
    folder: Path
    tokenizer: PreTrainedTokenizerBase
    model: LlamaForCausalLM
    optimizer: Optimizer
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Loss:
    """Sums over the tokens of a step: what the log shows of it."""

    nll: float = 0.0
    gate: float = 0.0
    tokens: int = 0

    def __add__(self, other: _Loss) -> _Loss:
        return _Loss(self.nll + other.nll, self.gate + other.gate, self.tokens + other.tokens)


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    progress: bool = True,
    stop_after: int | None = None,
) -> Path:
    """Train the model of a recipe, or go on where an earlier call stopped.

    Args:
        recipe: everything that decides the weights.
        folder: gets config, weights and tokenizer as Hugging Face reads them, renewed at every
            checkpoint; beside them the recipe (``recipe.json``),
            the log (``training.jsonl``, one line a checkpoint) and the checkpoint.
        progress: show a progress bar.
        stop_after: stop once so many steps are done in all, with a checkpoint.

    Returns:
        The folder.

    Raises:
        StorageError: the folder holds a training of another recipe. Another number of steps is no
            other recipe as long as the learning rates so far are the same.
    """
    run = _open_run(recipe, Path(folder))
    last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    with _progress_bar(run, last, progress) as bar:
        while run.step < last:
            began = time.perf_counter()
            loss = _step(run)
            run.seconds += time.perf_counter() - began
            if run.step % recipe.validate_every == 0 or run.step == last:
                _checkpoint(run, loss)
            bar.update()
            bar.set_postfix(nll=f"{loss.nll:.3f}", gate=f"{loss.gate:.3f}")
    return run.folder


def _open_run(recipe: Recipe, folder: Path) -> _Run:
    """Begin a training, or read back where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(recipe.vocabulary, recipe.tokenizer_items, recipe.context)
    model = build_model(recipe, tokenizer)
    run = _Run(recipe, folder, tokenizer, model, _make_optimizer(model, recipe))
    if (folder / CHECKPOINT).is_file():
        _restore(run)
    else:
        (folder / LOG).unlink(missing_ok=True)
    save_json(folder / RECIPE, asdict(recipe))
    return run


def _make_optimizer(model: LlamaForCausalLM, recipe: Recipe) -> Optimizer:
    return Optimizer(dict(model.named_parameters()), recipe.weight_decay)


def _step(run: _Run) -> _Loss:
    """Draw the problems of a step, add up their gradients, and change the weights."""
    batches = _batches(run, draw_step(run.recipe, run.tokenizer, run.step))
    weight = sum(float(batch.weight.sum()) for batch in batches)
    charge = sum(float(batch.charge.sum()) for batch in batches)
    run.model.zero_grad(set_to_none=True)
    loss = _Loss()
    for batch in batches:
        loss += _accumulate(run, batch, weight, charge)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), CLIP)
    run.optimizer.step(run.step, run.recipe.rate_at(run.step))
    run.step += 1
    run.tokens += loss.tokens
    return loss


def _batches(run: _Run, texts: list[Text]) -> list[TextBatch]:
    pad: Any = run.tokenizer.pad_token_id
    return list(make_batches(texts, run.recipe, pad))


def _accumulate(run: _Run, batch: TextBatch, weight: float, charge: float) -> _Loss:
    """Add the gradient of one batch of a step whose tokens weigh `weight` and `charge` in all."""
    passed = run_blocks(run.model, torch.from_numpy(batch.ids))
    nll = token_nll(run.model, passed.hidden, batch)
    nll = (nll * torch.from_numpy(batch.weight[:, 1:])).sum() / weight
    gate = (passed.gate * torch.from_numpy(batch.charge)).sum() / charge
    (nll + run.recipe.sparsity * gate).backward()
    return _Loss(nll.item(), gate.item(), int((batch.charge > 0).sum()))


def token_nll(model: LlamaForCausalLM, hidden: torch.Tensor, batch: TextBatch) -> torch.Tensor:
    """Negative log-likelihood of every token but the first of every text.

    Args:
        model: gives the unembedding.
        hidden: float32 [text, position, width], what `run_blocks` gives for the batch.
        batch: the texts.

    Returns:
        float32 [text, position - 1], in nats; without meaning where a token has no weight.
    """
    logits = model.lm_head(hidden[:, :-1])
    targets = torch.from_numpy(batch.ids[:, 1:])
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    ).view(targets.shape)


def _checkpoint(run: _Run, loss: _Loss) -> None:
    """Validate, write the log, the state and the model."""
    line = {
        "step": run.step,
        "tokens": run.tokens,
        "seconds": round(run.seconds, 1),
        "learning_rate": run.recipe.rate_at(run.step - 1),
        "nll": round(loss.nll, 5),
        "gate": round(loss.gate, 5),
        "validation": {code: round(_validate(run, code), 5) for code in run.recipe.shares},
    }
    logger.info("%s", line)
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    _save_state(run)
    export(run.model, run.tokenizer, run.folder, run.recipe.saved_as)


@torch.no_grad()
def _validate(run: _Run, language: str) -> float:
    """Mean NLL of the response tokens of held-out problems in a language, in nats."""
    total, tokens = 0.0, 0
    for batch in _batches(run, draw_held_out(run.recipe, run.tokenizer, language)):
        passed = run_blocks(run.model, torch.from_numpy(batch.ids))
        counted = torch.from_numpy(batch.weight[:, 1:] == 1)
        total += float(token_nll(run.model, passed.hidden, batch)[counted].sum())
        tokens += int(counted.sum())
    return total / tokens


def _save_state(run: _Run) -> None:
    """Write weights and optimizer state as one file, whole or not at all."""
    weights = {f"weight.{name}": weight for name, weight in run.optimizer.weights.items()}
    tensors = weights | run.optimizer.state
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    details = {"recipe": asdict(run.recipe), "step": run.step, "tokens": run.tokens}
    save_arrays(run.folder / CHECKPOINT, KIND, arrays, details | {"seconds": run.seconds})


def _restore(run: _Run) -> None:
    """Read weights and optimizer state back, and cut the log to the checkpoint."""
    path = run.folder / CHECKPOINT
    arrays, details = load_arrays(path, KIND)
    began = Recipe(**details["recipe"])
    changed = [key for key, value in asdict(began).items() if getattr(run.recipe, key) != value]
    if changed == ["steps"] and _same_rates(began, run.recipe, details["step"]):
        changed = []
    if changed:
        raise StorageError(
            f"{path} is of another recipe: {', '.join(changed)} differ. "
            "Give another folder, or the recipe that it was begun with"
        )
    with torch.no_grad():
        for name, weight in run.optimizer.weights.items():
            weight.copy_(torch.from_numpy(arrays[f"weight.{name}"]))
        for name, tensor in run.optimizer.state.items():
            tensor.copy_(torch.from_numpy(arrays[name]))
    run.step, run.tokens, run.seconds = (details[key] for key in ("step", "tokens", "seconds"))
    _cut_log(run.folder / LOG, run.step)


def _same_rates(one: Recipe, other: Recipe, steps: int) -> bool:
    """Whether the learning rates of two recipes agree on the first so many steps."""
    return all(one.rate_at(step) == other.rate_at(step) for step in range(steps))


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines after a step: they are about to be written again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def export(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, saved_as: str
) -> None:
    """Write a model as a Hugging Face folder, its weights whole or not at all.

    Args:
        model: stays as it is.
        tokenizer: goes beside it.
        folder: an existing folder.
        saved_as: number format of the weights, ``"float16"`` or ``"float32"``.
    """
    from copy import deepcopy

    from safetensors.torch import save_file

    dtype = getattr(torch, saved_as)
    weights = {name: w.detach().to(dtype).contiguous() for name, w in model.named_parameters()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    config = deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _progress_bar(run: _Run, last: int, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=last, initial=run.step, desc="train", unit="step", disable=not shown)
