"""Reading the activation counts and masks that the authors published.

The authors count a whole-text run and a prompt-only run and subtract. Because the last prompt token
sees another continuation, that leaks at the seam: 4 to 11 neurons a language of their Mistral files
come out negative (down to -0.19 % of the tokens) and the largest probability is 1.001. Negative
differences are clamped to 0, as the authors do; anything beyond such a seam effect is refused.
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensneurons.activations.checks import SEAM
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.errors import LensNeuronsError, PublishedCountsError, StorageError, choose
from lensneurons.neurons.sets import NeuronSet
from lensneurons.options import plain_options
from lensneurons.shapes import NeuronNumbers
from lensneurons.values.files import replacing, require_file, system_path
from lensneurons.values.provenance import Provenance

_NAME = re.compile(r"(?P<prefix>prefix\.)?activation\.(?P<language>[^.]+)\.(?P<model>.+)\.pt")


@plain_options
def read_published_counts(
    folder: str | Path, *, languages: Sequence[str] | None = None
) -> ActivationStatistics:
    """Read ``activation.{language}.{model}.pt`` and, where there, ``prefix.activation...``.

    Args:
        folder: holds the files of one model; each a ``torch.save``d dict of ``total_tokens`` and
            ``over_zero`` int64 [layer, neuron].
        languages: which, and in which order; all in alphabetical order by default.

    Returns:
        Statistics of the response tokens (whole text minus prompt), or of the whole text where
        there are no prompt-only files. Counts alone: the authors kept no sums.

    Raises:
        PublishedCountsError: no such files, several models, a file that is not such a dict, shapes
            that differ, totals that are not positive, or counts that no seam effect explains.
    """
    whole, prompts, model = _find_files(system_path(folder))
    chosen = list(languages) if languages is not None else sorted(whole)
    if not chosen:
        raise PublishedCountsError(f"languages=[] leaves nothing of {folder}: name at least one")
    for language in chosen:
        choose(language, sorted(whole), "language")
    if prompts and (lacking := [language for language in chosen if language not in prompts]):
        raise PublishedCountsError(f"{folder} has prompt-only counts, but none for {lacking}")
    counts, tokens = zip(*(_response(whole[k], prompts.get(k)) for k in chosen), strict=True)
    shapes = {array.shape for array in counts}
    if len(shapes) > 1:
        raise PublishedCountsError(f"the files of {folder} have different shapes: {sorted(shapes)}")
    return ActivationStatistics(
        languages=tuple(chosen),
        grouped_counts=np.stack(counts, axis=-1)[None],
        grouped_tokens=np.array([tokens], np.int64),
        provenance=Provenance(model=model, hook="hook_pre", scope="response" if prompts else "all"),
    )


def holds_published_counts(folder: str | Path) -> bool:
    """Whether a folder has files that `read_published_counts` reads."""
    path = system_path(folder)
    return os.path.isdir(path) and any(_NAME.fullmatch(entry.name) for entry in path.iterdir())


def _find_files(folder: Path) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Whole-text and prompt-only files by language, and the one model that they are of."""
    if not os.path.isdir(folder):
        raise PublishedCountsError(f"{folder} is not a folder")
    matches = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    whole = {m["language"]: path for m, path in matches if not m["prefix"]}
    prompts = {m["language"]: path for m, path in matches if m["prefix"]}
    if not whole:
        raise PublishedCountsError(f"{folder} holds no activation.LANGUAGE.MODEL.pt files")
    models = sorted({match["model"] for match, _ in matches})
    if len(models) > 1:
        raise PublishedCountsError(f"{folder} holds counts of several models: {models}")
    return whole, prompts, models[0]


def _response(whole: Path, prompt: Path | None) -> tuple[NeuronNumbers, int]:
    """Counts [layer, neuron] and tokens of the response: whole text minus prompt."""
    counts, tokens = _read_counts(whole)
    if prompt is not None:
        prompt_counts, prompt_tokens = _read_counts(prompt)
        if prompt_counts.shape != counts.shape:
            raise PublishedCountsError(f"{prompt.name} and {whole.name} differ in shape")
        counts, tokens = counts - prompt_counts, tokens - prompt_tokens
    if tokens <= 0:
        raise PublishedCountsError(
            f"{whole.name} has {tokens} response tokens: the prompt-only file does not belong to it"
        )
    worst = max(-int(counts.min()), int(counts.max()) - tokens)
    if worst > SEAM * tokens:
        raise PublishedCountsError(
            f"{whole.name}: a count lies {worst} outside 0..{tokens}, more than the {SEAM:.1%} "
            "that the seam between prompt and response explains; the counter overflowed, or the "
            "prompt-only file does not belong to it"
        )
    return np.maximum(counts, 0), tokens


def _read_counts(path: Path) -> tuple[NeuronNumbers, int]:
    """One file: counts int64 [layer, neuron] and total tokens."""
    content = _load(path)
    if not isinstance(content, dict) or not {"over_zero", "total_tokens"} <= set(content):
        raise PublishedCountsError(f"{path.name} is not a dict of over_zero and total_tokens")
    counts = _integers(content["over_zero"], f"{path.name}: over_zero")
    if counts.ndim != 2 or counts.size == 0:
        found = "empty" if counts.size == 0 else f"{counts.dtype} {counts.shape}"
        raise PublishedCountsError(
            f"{path.name}: over_zero is {found}, not integers [layer, neuron]"
        )
    tokens = _whole_number(content["total_tokens"], f"{path.name}: total_tokens")
    if tokens <= 0 or counts.min() < 0:
        raise PublishedCountsError(
            f"{path.name}: total_tokens {tokens}, smallest count {counts.min()}: a "
            f"{counts.dtype} counter overflowed"
        )
    if counts.max() > tokens:
        raise PublishedCountsError(
            f"{path.name}: a neuron has {counts.max()} active tokens of {tokens}"
        )
    return counts.astype(np.int64), tokens


def _integers(tensor: Any, name: str) -> np.ndarray:
    """The integers of a tensor, once it holds as many numbers as it seems to.

    Raises:
        PublishedCountsError: it is no tensor, of another type, or repeats few numbers, so that a
            small file would fill the memory.
    """
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise PublishedCountsError(f"{name} is a {type(tensor).__name__}, not a tensor")
    form = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        told = "meta (without numbers)" if tensor.is_meta else str(tensor.layout)
        raise PublishedCountsError(
            f"{name} is {told.removeprefix('torch.')}, {form}: save a dense tensor, .to_dense()"
        )
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if tensor.numel() and not whole:
        raise PublishedCountsError(f"{name} is {form}, not integers [layer, neuron]")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise PublishedCountsError(
            f"{name} is {form}, but the file holds only {tensor.untyped_storage().nbytes()} bytes "
            "of it: it was expanded; save a copy, .contiguous()"
        )
    return tensor.detach().resolve_conj().resolve_neg().numpy()


def _whole_number(value: Any, name: str) -> int:
    """A number of tokens: an integer, a float without a fraction, or a tensor of one of them.

    Raises:
        PublishedCountsError: it is something else; 1.5 would otherwise count as 1.
    """
    if (
        hasattr(value, "item")
        and getattr(value, "numel", lambda: 1)() == 1
        and not (getattr(value, "is_meta", False))
    ):
        value = value.item()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value != value or abs(value) >= 2**63 or value != int(value):
        raise PublishedCountsError(f"{name} is {value!r}, not a whole number")
    return int(value)


# What PyTorch raises for a damaged file depends on the byte.
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError,
               ArithmeticError, AssertionError, ImportError, MemoryError, zipfile.BadZipFile,
               struct.error, zlib.error)  # fmt: skip


def _load(path: Path) -> Any:
    """A ``torch.save``d file, read without running any code in it."""
    import pickle

    import torch

    try:
        require_file(path)
        _require_undamaged(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except StorageError as error:
        raise PublishedCountsError(f"{path} cannot be read safely: {error}") from None
    except pickle.UnpicklingError as error:
        # PyTorch's own message goes on to say how to switch the protection off.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        told = f" ({named[1]})" if named else ""
        raise PublishedCountsError(
            f"{path} cannot be read safely: it is damaged, or holds objects of Python{told} that "
            "could run code. Nothing in it was run; ask for a file of tensors and numbers alone"
        ) from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:120]
        raise PublishedCountsError(f"{path} cannot be read safely: {reason}") from None


def _require_undamaged(path: Path) -> None:
    """Raise where the checksums of a zip file, which PyTorch does not look at, do not hold.

    Raises:
        PublishedCountsError: the file is damaged, or grows when it is unpacked.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
            raise PublishedCountsError("it is packed, which torch.save never does")
        if damaged := file.testzip():
            raise PublishedCountsError(f"its part {damaged} is damaged; download it again")


@plain_options
def read_published_mask(
    path: str | Path, *, languages: Sequence[str], d_mlp: int
) -> dict[str, NeuronSet]:
    """Read a published mask: a list of languages, each a list of index tensors a layer.

    Works for the masks of arXiv 2505.21505 and those of LAPE.

    Args:
        path: the ``torch.save``d file.
        languages: what the positions of its list stand for; the file does not say.
        d_mlp: neurons a layer.

    Raises:
        PublishedCountsError: the file is of another form, or has another number of languages.
    """
    content = _load(system_path(path))
    if not isinstance(content, list) or len(content) != len(languages):
        found = len(content) if isinstance(content, list) else type(content).__name__
        raise PublishedCountsError(
            f"{path} holds {found}, not a list of {len(languages)} languages"
        )
    return {
        language: _read_mask(language, layers, d_mlp)
        for language, layers in zip(languages, content, strict=True)
    }


def write_published_mask(path: str | Path, sets: Mapping[str, NeuronSet]) -> Path:
    """Write a mask as the code of LAPE (arXiv 2402.16438) does, and return its path.

    A ``torch.save``d list of languages, each a list of int64 index tensors, one a layer. The names
    of the languages and d_mlp are not in the file: keep them for `read_published_mask`. That code
    sets these neurons to zero, whatever their class.

    Args:
        path: the file, usually ``NAME.pth``; it appears whole or not at all.
        sets: language to neurons, in the order of the list; all of one model.

    Raises:
        LensNeuronsError: no language, sets of different models, or of experts.
        StorageError: it cannot be written.
    """
    import torch

    sizes = {(one.n_layers, one.d_mlp) for one in sets.values()}
    if len(sizes) != 1:
        raise LensNeuronsError(f"a mask needs sets of one model; these are of {sorted(sizes)}")
    if any(one.n_experts or one.unit not in (None, "neuron") for one in sets.values()):
        raise LensNeuronsError(
            "a mask of the published code sets neurons of dense layers to zero, and these are "
            "experts, or neurons inside them: save them with format='lensneurons'"
        )
    content = []
    for one in sets.values():
        own = one.by_layer()
        layers = [own.get(layer, np.zeros(0, np.int64)) for layer in range(one.n_layers)]
        content.append([torch.tensor(indices) for indices in layers])
    with replacing(path) as temporary:
        torch.save(content, temporary)
    return Path(path)


def _read_mask(language: str, layers: Any, d_mlp: int) -> NeuronSet:
    """The neurons of one language from its index tensors, one a layer."""
    if not isinstance(layers, Sequence) or not all(hasattr(ids, "numpy") for ids in layers):
        raise PublishedCountsError(f"{language} is not a list of index tensors, one a layer")
    indices = [_integers(ids, f"{language}, layer {n}") for n, ids in enumerate(layers)]
    for layer, ids in enumerate(indices):
        if ids.ndim != 1:
            raise PublishedCountsError(f"{language} has {ids.shape} in layer {layer}, not a list")
        if ids.max(initial=0) >= d_mlp or ids.min(initial=0) < 0:
            wrong = ids.max() if ids.max() >= d_mlp else ids.min()
            raise PublishedCountsError(
                f"{language} has neuron {wrong} in layer {layer}, but d_mlp is {d_mlp}"
            )
    indices = [ids.astype(np.int64) for ids in indices]
    flat = np.concatenate([ids + layer * d_mlp for layer, ids in enumerate(indices)])
    return NeuronSet(flat, len(layers), d_mlp, language)
