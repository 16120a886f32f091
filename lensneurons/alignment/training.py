"""Step 4 of an alignment: direct preference optimization of a low-rank adapter.

    loss = -log sigmoid(beta * (margin of the better answer - margin of the worse))
    margin = log p_adapted(answer | prompt) - log p_base(answer | prompt)

(Rafailov et al. 2023, arXiv 2305.18290.) TRL's ``DPOTrainer`` trains, and it trains PEFT's LoRA;
nothing of either is changed. By default the adapter is on the maps of the attention alone, as in
the paper's code. The MLP's weights stay bitwise as they were, so neuron 17 of layer 3 is still the
same neuron, and what changes about it is what reaches it.

Every checkpoint is an adapter that `load_model` loads, so the neurons can be followed over steps.
An interrupted call goes on at its last whole checkpoint, and ends with the same weights.

>>> run = align("demo", pairs, "runs/zh-de", steps=300, learning_rate=1e-3)   # doctest: +SKIP
>>> model = load_model("demo", adapter=run.folder)                           # doctest: +SKIP

What this does not show: that the aligned model answers better. `accuracy` before and after does.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

from lensneurons.alignment.checkpoints import checkpoints, last_whole, mark_adapter, marking
from lensneurons.alignment.pairs import PreferencePair, PreferencePairs
from lensneurons.errors import (
    CorpusError,
    LensNeuronsError,
    ModelError,
    ProvenanceError,
    StorageError,
)
from lensneurons.models.adapters import quiet, read_mark
from lensneurons.models.identity import hash_weights
from lensneurons.models.loading import Dtype, read_model
from lensneurons.options import finite_number, plain_options, truth_value, whole_number
from lensneurons.tokens.beginnings import doubled, without_spelt
from lensneurons.tokens.chat import Template, refuse_system_alone
from lensneurons.tokens.encoding import tokenizer_hash
from lensneurons.values.base import Overview, Value, whole
from lensneurons.values.files import explaining, load_json, save_json, system_path
from lensneurons.values.provenance import Provenance, library_versions, require_same
from lensneurons.values.run_folders import Run, open_folder

if TYPE_CHECKING:
    import pandas as pd

# What TRL logs, and its column in the log of an alignment.
LOGGED = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "grad_norm": "gradient",
    "learning_rate": "learning_rate",
}


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
        for entry in fields(self):
            read = {"int": whole_number, "float": finite_number, "bool": truth_value}.get(
                str(entry.type)
            )
            if read is not None:
                plain = read(getattr(self, entry.name), entry.name)
                object.__setattr__(self, entry.name, plain)
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


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Value):
    """A trained adapter. Made by `align`; its file is ``alignment.json`` in its folder.

    Attributes:
        folder: the adapter after the last step; `load_model` takes it as ``adapter=``.
        settings: how it was trained; `modules` is the expression that the module names match.
        n_pairs: pairs that it was trained on.
        log: rows of `to_pandas`.
        provenance: of the base model and the pairs.
        preferences: ``"as scored"``; ``"shuffled"`` for the control, trained on `pairs.shuffled()`;
            ``"unknown"`` in files of an earlier lensneurons.
    """

    FILE_KIND = "alignment"
    RUN_FILE = "alignment.json"

    folder: Path
    settings: DPOSettings
    n_pairs: int
    log: tuple[Mapping[str, Any], ...]
    provenance: Provenance
    preferences: Literal["as scored", "shuffled", "unknown"] = "unknown"

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Step to the folder of its adapter, in the order of the steps."""
        return checkpoints(self.folder)

    def to_pandas(self) -> pd.DataFrame:
        """The log. Columns: step; pairs ("trained": the mean since the row before; "held out": all
        of them, at this step); loss in nats; margin, of the implicit rewards in units of beta times
        nats; accuracy, the share of pairs whose better answer has the higher reward;
        reward_chosen, reward_rejected; gradient, its norm; learning_rate.
        """
        import pandas as pd

        return pd.DataFrame(list(self.log), columns=["step", "pairs", *LOGGED.values()])

    def save(self, path: str | Path | None = None) -> Path:
        """Write ``alignment.json``, atomically, and return its path.

        Args:
            path: a folder to which the adapter was moved or copied; None for its own.
        """
        _, details = self._pack()
        del details["folder"]
        return save_json(system_path(path or self.folder) / self.RUN_FILE, details)

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """Read a folder that `align` has finished.

        Raises:
            StorageError: there is none, it was interrupted, or a file of the adapter was changed.
        """
        file = system_path(path) / cls.RUN_FILE
        if os.path.isdir(path) and not file.exists():
            raise StorageError(f"{path} has no {cls.RUN_FILE}: align() did not finish there")
        found = {**load_json(file), "folder": Path(path)}
        read_mark(path)
        return whole(file, cls, lambda: cls._unpack({}, found))

    def _brief(self) -> str:
        control = "CONTROL, preferences shuffled: " if self.preferences == "shuffled" else ""
        return (
            f"{self.provenance.model}: {control}{self.settings.steps} steps of "
            f"{self.settings.batch} pairs out of {self.n_pairs}, rank {self.settings.rank}, "
            f"checkpoints {list(self.checkpoints)}"
        )

    def _overview(self) -> Overview:
        columns = ("step", "pairs", "loss", "margin", "accuracy")
        cells = ([row[name] for name in columns] for row in self.log)
        rows = [[f"{c:.3f}" if isinstance(c, float) else str(c) for c in row] for row in cells]
        return Overview(repr(self), columns, rows)


def require_extra() -> None:
    """Raise unless what trains and loads adapters is installed.

    Raises:
        LensNeuronsError: says how to install it.
    """
    for name in ("peft", "trl"):
        if find_spec(name) is None:
            raise LensNeuronsError(
                f"alignment needs {name}, which is not installed: pip install 'lensneurons[align]'"
            )


@plain_options
def align(
    model: str | Path,
    pairs: PreferencePairs,
    run_dir: str | Path,
    *,
    dtype: Dtype = "float32",
    device: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    template: Template | None = None,
    system: str | None = None,
    progress: bool = True,
    **options: Unpack[DPOOptions],
) -> Alignment:
    """Train an adapter to prefer the better answer of each pair, or go on where a call stopped.

    Args:
        model: what `load_model` takes: ``"demo"``, a name on the hub, or a local folder.
        pairs: better and worse answers.
        run_dir: new, empty, or begun by the same call. Gets the adapter, one folder
            ``checkpoint-<step>`` for every checkpoint, and ``alignment.json`` with the log.
        dtype: number format of the model; the adapter trains in float32.
        device: ``"cpu"`` keeps it off a GPU; None takes the GPU where there is one.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub.
        template: ``"chat"`` makes each prompt the user's turn of the model's own chat template;
            None trains on the prompts as they are, which is right for answers that `respond` wrote
            in a chat. Behind an answer stands the tokenizer's end token either way.
        system: the system prompt of the chat.
        progress: show one progress bar, in steps.
        **options: the attributes of `DPOSettings`, such as ``steps`` and ``learning_rate``.

    Returns:
        Folder, checkpoints and log.

    Raises:
        LensNeuronsError: an option out of its range, or the extra ``align`` is not installed.
        CorpusError: a pair is longer than the model's context, too few are left to train on, or
            the pairs are written in another chat template.
        ModelError: no such model, none of its modules is meant, or it has no chat template.
        StorageError: the folder holds something else, or another process works in it.
        ProvenanceError: the folder was begun with another model, other pairs or settings.
    """
    settings = DPOSettings(**options)
    refuse_system_alone(template, system)
    require_extra()
    hugging_face, tokenizer, name = read_model(
        model, dtype=dtype, revision=revision, local_files_only=local_files_only
    )
    settings = replace(settings, modules=target_modules(hugging_face, settings.modules))
    if template is not None:
        pairs = pairs.in_chat(tokenizer, system=system)
    _check_lengths(pairs, tokenizer, hugging_face.config)
    trained, held_out = split_pairs(pairs, settings.held_out, settings.seed)
    coin = pairs.shuffle_seed
    control = None if coin is None else f"shuffled pairs, seed {coin}"
    provenance = Provenance(
        model=name,
        weights=hash_weights(hugging_face),
        dtype=dtype,
        tokenizer=tokenizer_hash(tokenizer),
        template=pairs.provenance.template,
        corpora=(pairs.fingerprint,),
        versions=library_versions(),
    )
    with open_folder(run_dir, provenance, asdict(settings)) as opened:
        run = cast("Run", opened)
        folder = run.path
        if (folder / Alignment.RUN_FILE).exists():
            done = Alignment.load(folder)
            _require_done_here(done, provenance, settings)
            return done
        with explaining(folder), quiet(), _progress(settings.steps, progress) as callback:
            trainer = _make_trainer(
                hugging_face, tokenizer, (trained, held_out), folder, settings, device
            )
            trainer.add_callback(callback)
            trainer.add_callback(marking(run, control))
            trainer.train(resume_from_checkpoint=last_whole(folder, run))
            run.require_there()
            trainer.save_model(str(folder))
            mark_adapter(folder, control)
        log = tuple(_log_rows(trainer.state.log_history))
        preferences = "as scored" if coin is None else "shuffled"
        done = Alignment(folder, settings, len(trained), log, provenance, preferences)
        done.save()
    return done


def split_pairs(
    pairs: PreferencePairs, share: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Divide pairs into those to train on and those held out, problem by problem.

    A problem is on one side in all languages, so nothing of it is seen.

    Args:
        pairs: all of them.
        share: share of the problems to hold out.
        seed: of the draw.

    Raises:
        CorpusError: none is left to train on.
    """
    order = sorted(
        {pair.id for pair in pairs},
        key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest(),
    )
    out = set(order[: round(share * len(order))])
    trained = [pair for pair in pairs if pair.id not in out]
    if not trained:
        raise CorpusError(f"{len(pairs)} pairs of {len(order)} problems: none is left to train on")
    return trained, [pair for pair in pairs if pair.id in out]


def target_modules(hugging_face: Any, modules: Any) -> str:
    """A regular expression that matches the names of the modules that get an adapter, whole.

    Args:
        hugging_face: a causal language model.
        modules: as in `DPOSettings.modules`.

    Raises:
        ModelError: there are no such modules.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    maps = (Linear, Conv1D)  # what LoRA knows
    linear = [name for name, module in hugging_face.named_modules() if isinstance(module, maps)]
    if modules == "attention":
        ends = {end for name in linear if (end := _attention_end(hugging_face, name))}
    else:
        named = [modules] if isinstance(modules, str) else list(modules)
        known = {name.split(".")[-1] for name in linear}
        ends = known & set(named)
        if lacking := set(named) - ends:
            raise ModelError(
                f"modules={named}: {type(hugging_face).__name__} has no linear map "
                f"{min(lacking)!r}; it has {sorted(known)}"
            )
    if not ends:
        raise ModelError(
            f"{type(hugging_face).__name__} has no attention that can be told by its name: give "
            "modules=, the names of its linear maps"
        )
    return rf"(?:.*\.)?(?:{'|'.join(map(re.escape, sorted(ends)))})"


def _attention_end(hugging_face: Any, name: str) -> str | None:
    """The end of a linear map's name from its attention module on; None where it is in none."""
    steps = name.split(".")
    for depth in range(1, len(steps)):
        owner = hugging_face.get_submodule(".".join(steps[:depth]))
        if "Attention" in type(owner).__name__:
            return ".".join(steps[depth - 1 :])
    return None


def _check_lengths(pairs: PreferencePairs, tokenizer: Any, config: Any) -> None:
    """Raise for a pair that does not fit the context: its end would be cut off.

    Raises:
        CorpusError: names the pair.
    """
    context = getattr(config, "max_position_embeddings", None)
    if context is None:
        return
    texts = [pair.prompt + max(pair.chosen, pair.rejected, key=len) for pair in pairs]
    encoded = tokenizer(texts, return_special_tokens_mask=True)
    masks = encoded["special_tokens_mask"]
    for pair, ids, added in zip(pairs, encoded["input_ids"], masks, strict=True):
        if (length := len(ids) - doubled(ids, added)) >= context:
            raise CorpusError(
                f"a pair of {pair.id!r} ({pair.language}) has {length} tokens; the model's "
                f"context holds {context}, the end token included: leave long answers out"
            )


def _make_trainer(
    hugging_face: Any,
    tokenizer: Any,
    pairs: tuple[list[PreferencePair], list[PreferencePair]],
    folder: Path,
    settings: DPOSettings,
    device: str | None,
) -> Any:
    """TRL's trainer with a LoRA of PEFT, for pairs to train on and pairs held out."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, ProgressCallback
    from transformers.pytorch_utils import Conv1D
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    # TRL encodes by itself, and would let a prompt that spells BOS begin twice.
    every_side = [pair.prompt for side in pairs for pair in side]
    prompts = without_spelt(tokenizer, every_side)
    trained, held_out = (
        Dataset.from_dict(
            {
                "prompt": prompts[first : first + len(side)],
                "chosen": [pair.chosen for pair in side],
                "rejected": [pair.rejected for pair in side],
            }
        )
        for first, side in zip((0, len(pairs[0])), pairs, strict=True)
    )
    every = min(settings.checkpoint_every, settings.steps)
    arguments = DPOConfig(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.micro_batch,
        per_device_eval_batch_size=settings.micro_batch,
        gradient_accumulation_steps=settings.batch // settings.micro_batch,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warm_up * settings.steps),
        lr_scheduler_type="cosine",
        beta=settings.beta,
        loss_type=["sigmoid", "sft"] if settings.nll_weight else ["sigmoid"],
        loss_weights=[1.0, settings.nll_weight] if settings.nll_weight else None,
        max_length=None,
        save_steps=every,
        eval_strategy="steps" if pairs[1] else "no",
        eval_steps=every,
        logging_steps=max(1, min(10, every)),
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=False,
        seed=settings.seed,
        use_cpu=device == "cpu",
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
    )
    target = str(settings.modules)
    matched = (m for name, m in hugging_face.named_modules() if re.fullmatch(target, name))
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target,
        # GPT-2 keeps its weights as [input, output].
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in matched),
        task_type="CAUSAL_LM",
    )
    trainer = DPOTrainer(
        model=hugging_face,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=trained,
        eval_dataset=held_out if pairs[1] else None,
        peft_config=lora,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


@contextmanager
def _progress(steps: int, shown: bool) -> Iterator[Any]:
    """A bar of steps, in place of Hugging Face's own lines and bars.

    The bar shows the last loss, margin and accuracy. Yields the callback that moves it.
    """
    from datasets.utils import logging
    from tqdm.auto import tqdm
    from transformers import TrainerCallback

    class Bar(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(state.global_step - bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            names = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "right"}
            found = {ours: f"{logs[name]:.3f}" for name, ours in names.items() if name in logs}
            bar.set_postfix(found)

    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with tqdm(total=steps, desc="align", unit="step", disable=not shown) as bar:
            yield Bar()
    finally:
        if before:
            logging.enable_progress_bar()


def _require_done_here(done: Alignment, provenance: Provenance, settings: DPOSettings) -> None:
    """Raise unless a finished alignment is the one that is asked for.

    Raises:
        StorageError: its file was copied in.
    """
    file = done.folder / Alignment.RUN_FILE
    try:
        require_same(done.provenance, provenance)
    except ProvenanceError as error:
        raise StorageError(f"{file} is of another run: {error}; delete it, call again") from None
    ours, theirs = asdict(settings), asdict(done.settings)
    if different := [name for name in ours if ours[name] != theirs[name]]:
        raise StorageError(
            f"{file} is of another run ({different[0]}: {theirs[different[0]]!r}, not "
            f"{ours[different[0]]!r}): delete it, call again"
        )


def _log_rows(history: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a logged step, on the pairs trained on and on those held out."""
    for entry in history:
        pairs, prefix = ("held out", "eval_") if "eval_loss" in entry else ("trained", "")
        row = {ours: entry.get(prefix + theirs) for theirs, ours in LOGGED.items()}
        if row["loss"] is not None:
            yield {"step": entry["step"], "pairs": pairs, **row}
