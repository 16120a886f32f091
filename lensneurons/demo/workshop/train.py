"""Train a demo model, from a checkout of this repository and nothing else.

    python -m lensneurons.demo.workshop.train --preset full --out FOLDER

The folder is one of Hugging Face. The same call resumes a training that was stopped.

    draw the problems of a step -> forward and backward, batch by batch -> optimizer -> next step

The loss is the mean negative log-likelihood of the tokens plus a penalty on the gate activations:
one for all layers, or one a layer, which holds all layers at the same firing rate. Response tokens
weigh 1 and prompt tokens less: most of a prompt is chance (names, numbers), while the response
follows from it. Prompts still count, so that the model is a language model of both and its neurons
know the grammar of each language.

The same recipe on the same machine with the same number of threads gives the same weights, however
often the training was stopped. Other versions of PyTorch, of transformers or of this code may round
differently, and then a long training ends with other weights, as with another seed. So may
``--compile``, which translates the model with the C++ compiler of the machine before the first step
(one to five minutes) and takes about two thirds of the time from then on.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from lensneurons.demo.workshop.model import build_model, run_blocks
from lensneurons.demo.workshop.optimizer import Optimizer
from lensneurons.demo.workshop.problem_batches import draw_held_out, draw_step, make_batches
from lensneurons.demo.workshop.recipe import RECIPES, Recipe
from lensneurons.demo.workshop.tokenizer import train_tokenizer
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.values.files import load_arrays, replacing, save_arrays, save_json

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

CHECKPOINT = "checkpoint.safetensors"
LOG = "training.jsonl"
RECIPE = "recipe.json"
KIND = "demo training"
# Longest gradient that one step may follow.
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
    firing: torch.Tensor  # float32 [layer], rate of the last step
    forward: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]  # `token_nll`
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    progress: bool = True,
    stop_after: int | None = None,
    compiled: bool = False,
) -> Path:
    """Train the model of a recipe, or go on where an earlier call stopped.

    Args:
        recipe: everything that decides the weights.
        folder: gets config, weights and tokenizer as Hugging Face reads them, renewed at every
            checkpoint; beside them the recipe (``recipe.json``), the log (``training.jsonl``, one
            line a checkpoint) and the checkpoint.
        progress: show a progress bar.
        stop_after: stop once so many steps are done in all, with a checkpoint.
        compiled: translate the model with the C++ compiler of this machine first. It rounds
            differently, and may do so again after each stop.

    Returns:
        The folder.

    Raises:
        StorageError: the folder holds a training of another recipe. Another number of steps is no
            other recipe as long as the learning rates so far are the same.
    """
    from tqdm.auto import tqdm

    run = _open_run(recipe, Path(folder), compiled=compiled)
    last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    with tqdm(total=last, initial=run.step, desc="train", unit="step", disable=not progress) as bar:
        while run.step < last:
            began = time.perf_counter()
            nll, gate = _step(run)
            run.seconds += time.perf_counter() - began
            if run.step % recipe.validate_every == 0 or run.step == last:
                _checkpoint(run, nll, gate)
            bar.update()
            bar.set_postfix(nll=f"{nll:.3f}", gate=f"{gate:.3f}")
    return run.folder


def _open_run(recipe: Recipe, folder: Path, *, compiled: bool) -> _Run:
    """Begin a training, or read back where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(recipe.vocabulary, recipe.tokenizer_items, recipe.context)
    model = build_model(recipe, tokenizer)
    optimizer = Optimizer(dict(model.named_parameters()), recipe.weight_decay)
    firing = torch.zeros(recipe.n_layers)
    forward = torch.compile(token_nll, dynamic=True) if compiled else token_nll
    run = _Run(recipe, folder, tokenizer, model, optimizer, firing, forward)
    if (folder / CHECKPOINT).is_file():
        _restore(run)
        _export(run)  # a kill may have left the model of the checkpoint before
    else:
        (folder / LOG).unlink(missing_ok=True)
    save_json(folder / RECIPE, asdict(recipe))
    return run


def _step(run: _Run) -> tuple[float, float]:
    """Change the weights by the problems of a step; return their weighted NLL and charged gate."""
    texts = draw_step(run.recipe, run.tokenizer, run.step)
    batches = list(make_batches(texts, run.recipe, run.tokenizer))
    weight = sum(float(batch.weight.sum()) for batch in batches)
    charge = sum(float(batch.charge.sum()) for batch in batches)
    tokens = sum(int((batch.charge > 0).sum()) for batch in batches)
    run.model.zero_grad(set_to_none=True)
    weights = weigh_layers(run.recipe, run.step, run.firing)
    run.firing.zero_()
    nlls, gates = [], []
    for batch in batches:
        each, passed, fired = run.forward(run.model, torch.from_numpy(batch.ids))
        charges = torch.from_numpy(batch.charge)
        nll = (each * torch.from_numpy(batch.weight[:, 1:])).sum() / weight
        gate = (passed.mean(0) * charges).sum() / charge
        if not run.recipe.firing_target:
            loss = nll + run.recipe.sparsity * gate
        else:
            loss = nll + charge_layers(passed, fired, charges, weights) / charge
        loss.backward()
        nlls.append(nll.item())
        gates.append(gate.item())
        run.firing += (fired * (charges > 0)).sum((1, 2)) / tokens
    run.tokens += tokens
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), CLIP)
    run.optimizer.step(run.step, run.recipe.rate_at(run.step))
    run.step += 1
    return sum(nlls), sum(gates)


def weigh_layers(recipe: Recipe, step: int, firing: torch.Tensor) -> torch.Tensor:
    """Return what each layer's penalty weighs in a step, float32 [layer], from its last rate.

    A layer that fires no more than the target of the step pays nothing. One that fires more pays in
    proportion to the excess. So no weight lags behind its rate: weights that grew while a layer
    fired too much were measured to push all layers far below the target and to hold them there.
    """
    return recipe.steer_gain * (firing / recipe.target_at(step) - 1).clamp(min=0)


def charge_layers(
    passed: torch.Tensor, fired: torch.Tensor, charges: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Charge the gates of every layer by its own weight, in units of their mean where they fire.

    A layer can therefore not escape by making its gates smaller and the next matrix larger. The
    value is about the weighted sum of the firing rates, times the sum of `charges`.

    Args:
        passed: float [layer, text, position], mean activation of the neurons that fire.
        fired: float [layer, text, position], their share.
        charges: float [text, position], 0 for padding.
        weights: float [layer].
    """
    real = charges > 0
    unit = (passed.detach() * real).sum((1, 2)) / (fired * real).sum((1, 2)).clamp(min=1e-6)
    return ((weights / unit.clamp(min=1e-6))[:, None, None] * passed * charges).sum()


def token_nll(
    model: LlamaForCausalLM, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run texts and return the NLL of their tokens, and how their gates fire.

    Args:
        model: what `build_model` makes.
        ids: int64 [text, position].

    Returns:
        float32 [text, position - 1], in nats, of all tokens but the first of every text, without
        meaning where a text is padded; and the gates and firing rates of `run_blocks`.
    """
    hidden, gates, firing = run_blocks(model, ids)
    logits, targets = model.lm_head(hidden[:, :-1]).flatten(0, 1), ids[:, 1:]
    nll = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
    return nll.view(targets.shape), gates, firing


@torch.no_grad()
def _validate(run: _Run, language: str) -> float:
    """Mean NLL of the response tokens of held-out problems in a language, in nats."""
    total, tokens = 0.0, 0
    texts = draw_held_out(run.recipe, run.tokenizer, language)
    for batch in make_batches(texts, run.recipe, run.tokenizer):
        counted = torch.from_numpy(batch.weight[:, 1:] == 1)
        nll, *_ = token_nll(run.model, torch.from_numpy(batch.ids))
        total += float(nll[counted].sum())
        tokens += int(counted.sum())
    return total / tokens


def _checkpoint(run: _Run, nll: float, gate: float) -> None:
    """Validate, and write the log, the state and the model."""
    line = {
        "step": run.step,
        "tokens": run.tokens,
        "seconds": round(run.seconds, 1),
        "learning_rate": run.recipe.rate_at(run.step - 1),
        "nll": round(nll, 5),
        "gate": round(gate, 5),
        "firing": [round(float(rate), 4) for rate in run.firing],
        "validation": {code: round(_validate(run, code), 5) for code in run.recipe.shares},
    }
    logger.info("%s", line)
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    details = {key: getattr(run, key) for key in ("step", "tokens", "seconds")}
    arrays = {name: tensor.detach().numpy() for name, tensor in _state(run).items()}
    save_arrays(run.folder / CHECKPOINT, KIND, arrays, details | {"recipe": asdict(run.recipe)})
    _export(run)


def _state(run: _Run) -> dict[str, torch.Tensor]:
    """Everything that the next step depends on, by its name in the checkpoint."""
    weights = {f"weight.{name}": weight for name, weight in run.optimizer.weights.items()}
    steered = {"firing": run.firing} if run.recipe.firing_target else {}
    return weights | run.optimizer.state | steered


def _restore(run: _Run) -> None:
    """Read weights and optimizer state back, and cut the log to the checkpoint."""
    path = run.folder / CHECKPOINT
    arrays, details = load_arrays(path, KIND)
    began, done = Recipe(**details["recipe"]), details["step"]
    changed = [key for key, value in asdict(began).items() if getattr(run.recipe, key) != value]
    same_rates = all(began.rate_at(step) == run.recipe.rate_at(step) for step in range(done))
    if changed and not (changed == ["steps"] and same_rates):
        raise StorageError(
            f"{path} is of another recipe: {', '.join(changed)} differ. "
            "Give another folder, or the recipe that it was begun with"
        )
    with torch.no_grad():
        for name, tensor in _state(run).items():
            tensor.copy_(torch.from_numpy(arrays[name]))
    run.step, run.tokens, run.seconds = done, details["tokens"], details["seconds"]
    # The lines after the checkpoint are about to be written again.
    log = run.folder / LOG
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    kept = [line for line in lines if json.loads(line)["step"] <= done]
    with replacing(log) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _export(run: _Run) -> None:
    """Write the model as a Hugging Face folder, its weights whole or not at all."""
    model, dtype = run.model, getattr(torch, run.recipe.saved_as)
    weights = {name: w.detach().to(dtype).contiguous() for name, w in model.named_parameters()}
    with replacing(run.folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    config = deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    config.save_pretrained(run.folder)
    model.generation_config.save_pretrained(run.folder)
    run.tokenizer.save_pretrained(run.folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a model and say where it is; return 2 if its folder holds something else."""
    parser = argparse.ArgumentParser(
        prog="python -m lensneurons.demo.workshop.train",
        description="Train the demo model on word problems in ten languages, without outside data.",
    )
    parser.add_argument("--preset", choices=RECIPES, default="full", help="which recipe")
    parser.add_argument("--out", required=True, help="folder for the model; resumed if begun")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--steps", type=int, help="another number of steps than the recipe's")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--compile", action="store_true", help="translate the model first (C++)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    changes = {name: getattr(options, name) for name in ("seed", "steps")}
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        recipe = replace(RECIPES[options.preset], **given)
        folder = train(recipe, options.out, progress=not options.quiet, compiled=options.compile)
    except LensNeuronsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
