"""Models: TransformerLens models as they are, loaded from a hub or from a local folder.

`load_model` returns a ``TransformerBridge`` with raw weights, whose logits equal Hugging Face's. We
never wrap it. Every function of the package also accepts a bridge, or a TransformerLens 3.9
``HookedTransformer``, that the user already has.

This package is the only one that knows how TransformerLens is built.

>>> import lensneurons as ln
>>> model = ln.load_model("Qwen/Qwen3-0.6B-Base")            # doctest: +SKIP
>>> model = ln.load_model("runs/my-fine-tune", dtype="bfloat16", device="cuda")   # doctest: +SKIP
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lensneurons.errors import ModelError, choose
from lensneurons.models.adapters import adapter_name, add_adapter
from lensneurons.models.gguf import find_gguf, gguf_types
from lensneurons.models.identity import (
    copy_tokenizer,
    first_sentence,
    quantisation_of,
    remember_quantisation,
    remember_tokenizer,
)
from lensneurons.models.offload import DeviceMap, placement, require_readable_embedding
from lensneurons.models.quantised import as_floats, options_for_floats, quantised_as
from lensneurons.models.routers import expert_site, has_routers
from lensneurons.models.sites import SUPPORTED, proving_neurons
from lensneurons.models.weights import (
    probe_logits,
    require_complete,
    require_same_logits,
    text_model,
)
from lensneurons.options import plain_options
from lensneurons.values.files import system_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Dtype = Literal["float32", "float16", "bfloat16", "float64"]
DEMO = "demo"
HUB_SECONDS = 10.0  # for its answer whether it has a model
DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "weights"


@plain_options
def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: Dtype | torch.dtype = "float32",
    revision: str | None = None,
    local_files_only: bool = False,
    adapter: str | Path | None = None,
    adapter_revision: str | None = None,
    device_map: DeviceMap | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload_folder: str | Path | None = None,
) -> Any:
    """Load a causal language model as a TransformerLens ``TransformerBridge`` with raw weights.

    A mixture of experts loads for what is said of its experts, of the neurons inside them, and of
    the whole model: ``collect(..., site=...)``, `ablate`, `ablation_matrix`, `export`, `nll`. What
    reads neurons of dense MLPs refuses it.

    Quantised checkpoints are read as the floats that they stand for, where that can be done
    (`lensneurons.models.quantised`).

    Args:
        name_or_path: ``"demo"``, the small model in ten languages that comes with this package; a
            name on the hub; a local Hugging Face folder, or a GGUF file (both used without any
            network). A folder of your own that is called demo is ``"./demo"``.
        device: where to put it; None takes the GPU where there is one.
        dtype: number format of the weights and activations. Counts depend on it: bf16 against
            fp32 flips the sign of 0.28 % of the pre-activations.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub; only what is already in its cache.
        adapter: a PEFT adapter, added to the weights: a folder (what `align` wrote, or a checkpoint
            in it), a name on the hub, or, for ``"demo"``, one that comes with this package:
            ``"zh-de"``, ``"sw-th"`` or ``"all"``, with a step behind it for a checkpoint
            (``"zh-de/40"``), or the control ``"zh-de-shuffled"``. Needs the extra ``align``.
        adapter_revision: branch, tag or commit of the adapter on the hub.
        device_map: how to spread a model over several devices, in place of `device`: ``"auto"``,
            ``"balanced"``, ``"balanced_low_0"``, ``"sequential"``, or each module's place, such as
            ``{"model.layers.0": 0, ..., "lm_head": "disk"}``. Numbers do not depend on it. Needs
            the extra ``split``; parts on a GPU cannot be mixed with parts on the CPU or the disk.
        max_memory: most memory of each device, such as ``{0: "20GiB", 1: "20GiB"}``.
        offload_folder: where weights on the disk go that the model's own files do not hold alone.

    Raises:
        ModelError: no such model, folder, adapter or device; files or weights missing in it; or an
            architecture without dense MLP neurons and without routers (state-space models), or
            quantised weights that have no floats, which is told before they are downloaded.
        LensNeuronsError: PEFT, gguf or Accelerate is needed and not installed, or `device` and
            `device_map` do not go together.
    """
    spread = placement(device_map, max_memory, offload_folder, device)
    place = None if spread else _device(device)
    hugging_face, tokenizer, name = read_model(
        name_or_path,
        dtype=dtype,
        revision=revision,
        local_files_only=local_files_only,
        spread=spread,
    )
    if adapter is not None:
        hugging_face = add_adapter(hugging_face, name, adapter, local_files_only, adapter_revision)
    if place is not None:
        hugging_face = hugging_face.to(place)
    require_readable_embedding(hugging_face)
    wanted = probe_logits(hugging_face)
    model = bridge_model(name, hugging_face, copy_tokenizer(tokenizer), place)
    if has_routers(model):
        require_same_logits(name, model, wanted)
        expert_site(model)
    else:
        with proving_neurons(model):
            require_same_logits(name, model, wanted)
    remember_tokenizer(model, tokenizer)
    if (types := quantisation_of(hugging_face)) != "none":
        remember_quantisation(model, types)
    if adapter is not None:
        model.cfg.model_name = adapter_name(name, adapter)
    return model


def read_model(
    name_or_path: str | Path,
    *,
    dtype: Dtype | torch.dtype = "float32",
    revision: str | None = None,
    local_files_only: bool = False,
    spread: Mapping[str, Any] | None = None,
) -> tuple[Any, PreTrainedTokenizerBase, str]:
    """Read a causal language model as Hugging Face has it, by the rules of `load_model`.

    `spread` holds the options that place its parts, as `offload.placement` gives them.

    Returns:
        The model, in evaluation mode; its tokenizer; the name that it goes by. Of a model that
        also reads pictures or sound, the part that reads text.

    Raises:
        ModelError: no such model or folder, or files or weights missing in it.
    """
    from transformers import AutoConfig, AutoTokenizer, GgufConfig

    if not isinstance(dtype, torch.dtype):
        dtype = getattr(torch, choose(dtype, get_args(Dtype), "dtype"))
    source = _find(name_or_path)
    file = find_gguf(Path(source))
    place = source if file is None else str(file.parent)
    here = Path(place).is_dir()
    # False, not the default: the default asks on the terminal whether to run a model's own code.
    options: dict[str, Any] = {"trust_remote_code": False}
    options |= {"revision": revision} if revision else {}
    unreachable = not (local_files_only or here) and not _hub_answers(source, revision)
    options["local_files_only"] = local_files_only or here or unreachable
    own: dict[str, Any] = {}
    if file is not None:
        gguf_types(file)  # is it whole, and can it be read here?
        options["gguf_file"] = file.name
        own["quantization_config"] = GgufConfig(dequantize=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        config = AutoConfig.from_pretrained(place, **options)
        told = None if file else quantised_as(config)
        own |= {} if file else options_for_floats(source, config)
        kind = _auto_class(config)
        with warnings.catch_warnings():
            # Of compressed-tensors: the checkpoint's own scheme is used, as floats, as it shall be.
            warnings.filterwarnings("ignore", "You passed `quantization_config`")
            loaded: Any = kind.from_pretrained(
                place,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report, and refused below
                **options,
                **own,
                **(spread or {}),
            )
    except ModelError:
        raise
    except Exception as error:  # a folder can be wrong in ways that end anywhere in transformers
        held = "the file" if file else "the folder" if here else "the hub or its local cache"
        held = "the local cache, and the hub does not answer" if unreachable else held
        told = "" if here else _other_revisions(source, revision)
        needs = "A model needs config.json, weights and a tokenizer (save_pretrained of both)"
        raise ModelError(
            f"{source!r} could not be loaded from {held}: {first_sentence(error)}"
            f"{'' if file else f'. {told}{needs}'}"
        ) from error
    model, report = loaded
    require_complete(source, model, report)
    if told is not None:
        model = as_floats(source, model, dtype)
    whole, model = model, text_model(model).eval()
    if spread and model is not whole:
        raise ModelError(
            f"{source!r} reads more than text, and a device_map is for all of it: give device="
        )
    if file is not None or told is not None:
        remember_quantisation(model, told or gguf_types(Path(source)))
    return model, tokenizer, DEMO if source == str(DEMO_FOLDER) else source


def _hub_answers(name: str, revision: str | None) -> bool:
    """Whether the hub answers, whatever it says of a model; one question, which is not repeated.

    Where it cannot be reached, transformers would ask for every file six times: 68 s for a model
    that is not there. Without it, models in the local cache still load.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return True  # transformers does not ask it either
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return True  # it says no, and why
    except Exception:  # noqa: BLE001 - no network, a proxy, a timeout: of whatever HTTP library
        return False
    return True


def _auto_class(config: Any) -> Any:
    """Which of transformers' classes reads a model; some with a vision tower are in another list.

    `text_model` takes the language model out of those.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    pictures = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if pictures else AutoModelForCausalLM


def _other_revisions(name: str, revision: str | None) -> str:
    """A sentence on the revisions in the cache, if it has some and not the one that is wanted."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    names = {
        path.read_text().strip(): path.relative_to(folder / "refs").as_posix()
        for path in (folder / "refs").rglob("*")
        if path.is_file()
    }
    commits = sorted(path.name for path in (folder / "snapshots").glob("*"))
    wanted = revision or "main"
    if not commits or wanted in (*commits, *names.values()):
        return ""
    told = ", ".join(f"{one} ({names[one]})" if one in names else one for one in commits)
    return (
        f"The cache has no revision {wanted!r} of it, but {told}: give revision= one of these, or "
        "load it once with network. "
    )


def _find(name_or_path: str | Path) -> str:
    """The name or folder to load; raise where it can be neither."""
    if name_or_path == DEMO:
        return str(DEMO_FOLDER)
    path = system_path(name_or_path).expanduser()
    if (file := find_gguf(path)) is not None:
        return str(file)
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{path} holds no config.json: a local model is a folder written by "
                "save_pretrained (config.json, *.safetensors and the tokenizer's files), or a "
                "GGUF file"
            )
        return str(path)
    name = str(name_or_path)
    if (
        path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") > 1
        or os.path.isfile(path)
    ):
        raise ModelError(
            f"{name_or_path} is not a folder: give a hub name, a Hugging Face folder or a GGUF file"
        )
    return name


def _device(device: str | torch.device | None) -> torch.device:
    """The device that was asked for; raise where there is none such."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device={str(device)!r} cannot be used here: {first_sentence(error)}; give 'cpu', or "
            "a device of this machine"
        ) from error
    if place.type == "meta":
        raise ModelError("device='meta' holds no weights, so nothing can be computed on it")
    return place


def bridge_model(source: str, hugging_face: Any, tokenizer: Any, place: torch.device | None) -> Any:
    """The bridge over a loaded model, on its device; None leaves its parts where they are.

    Raises:
        ModelError: TransformerLens has no adapter for it, or cannot bridge it.
    """
    from transformer_lens.model_bridge import TransformerBridge

    try:
        return TransformerBridge.boot_transformers(
            source,
            hf_model=hugging_face,
            tokenizer=tokenizer,
            device=place,
            dtype=next(hugging_face.parameters()).dtype,
        )
    except Exception as error:  # what it cannot bridge ends anywhere in its adapters
        kind = type(hugging_face).__name__
        if "determine supported architecture" in str(error):
            raise ModelError(
                f"TransformerLens has no adapter for {kind} ({source!r}). {SUPPORTED}"
            ) from error
        raise ModelError(
            f"TransformerLens cannot bridge {source!r} ({kind} with this configuration): "
            f"{first_sentence(error)}. {SUPPORTED}"
        ) from error
