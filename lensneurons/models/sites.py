"""Where the neurons of a model are, and the proof of it.

A neuron is one unit of the first MLP matrix followed by its non-linearity. In TransformerLens names

    ungated:  hook_pre = x @ W_in + b_in        hook_post = act_fn(hook_pre)
    gated:    hook_pre = x @ W_gate             hook_post = act_fn(hook_pre) * (x @ W_in)

and ``hook_post @ W_out + b_out`` is the output of the MLP. The sign of ``hook_post`` of a gated MLP
differs from that of ``hook_pre`` on half of the entries.

A neuron is active where ``act_fn(hook_pre) > 0``. For SiLU, GELU and ReLU that is where
``hook_pre > 0``; xIELU (Apertus) is positive far below zero as well, from a point that each layer
has learned, and is evaluated.

Nothing here is guessed from a name. The activation function is the module's own (the
configuration that TransformerLens keeps says ReLU for BLOOM and Falcon, which use GELU), the width
is the projection's own, and `verify_neuron_hooks` proves the site by a forward pass. That pass also
shows that a block adds nothing else to the stream (`lensneurons.models.blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lensneurons.errors import ModelError
from lensneurons.models.blocks import require_no_surplus, summing_blocks
from lensneurons.models.family import context_length, input_device, model_family
from lensneurons.models.identity import once_a_call
from lensneurons.models.offload import in_memory
from lensneurons.models.routers import has_routers
from lensneurons.shapes import Activation

ActivationFunction = Callable[[torch.Tensor], torch.Tensor]
ACTIVATION_NAMES = ("act_fn", "activation_fn", "act", "gelu_impl", "activation")
Hook = Literal["hook_pre", "hook_post"]
SUPPORTED = (
    "Supported are models whose every block has one MLP with an elementwise activation, of one "
    "width: Llama, Mistral, Ministral 3, Qwen 2/3/3.5, Gemma 1 to 4, Cohere 1/2, OLMo 1 to 3, Phi, "
    "GLM-4, Granite, Exaone 4, SmolLM3, Nemotron, Apertus, Starcoder 2, GPT-2/J/Neo/NeoX, BLOOM, "
    "MPT, OPT, Falcon, XGLM. Mixtures of experts (by collect(..., site=...) and ablate: Mixtral, "
    "Qwen2-MoE, Qwen3-MoE, OLMoE, GPT-OSS, DeepSeek-V3, Gemma 4) and state-space models are not"
)


@dataclass(frozen=True)
class NeuronSite:
    """The neurons of one architecture.

    Attributes:
        n_layers: transformer blocks.
        d_mlp: neurons a block.
        gated: whether ``hook_post`` is ``act_fn(hook_pre)`` times a linear branch.
        activations: each layer's own activation function, elementwise.
        activation_name: its name, for provenance.
        sign_decides: whether the activation is positive exactly where its argument is.
        pre: hook name of the activation's argument, a layer each.
        post: hook name of the value that W_out reads, a layer each.
    """

    n_layers: int
    d_mlp: int
    gated: bool
    activations: tuple[ActivationFunction, ...]
    activation_name: str
    sign_decides: bool
    pre: tuple[str, ...]
    post: tuple[str, ...]

    @property
    def hook(self) -> str:
        """What provenance calls the site."""
        return "hook_pre"

    @property
    def parts(self) -> dict[str, int]:
        """Of how many parts the neurons of a layer are: of none."""
        return {}

    def reading(self, layer: int) -> tuple[ActivationFunction, bool]:
        """How counts read a layer: its activation function, and whether the sign decides."""
        return self.activations[layer], self.sign_decides


@dataclass(frozen=True)
class HookProof:
    """What `verify_neuron_hooks` measured; both differences are relative to the largest entry.

    Attributes:
        fired: how often each layer's hook fired in one forward pass: always 1.
        mlp_difference: of ``hook_post @ W_out + b_out`` from the output of the MLP.
        activation_difference: of ``act_fn(hook_pre)`` (times the linear branch) from ``hook_post``.
    """

    fired: int
    mlp_difference: float
    activation_difference: float


def neuron_site(model: Any) -> NeuronSite:
    """Find the neurons of a TransformerLens model.

    Raises:
        ModelError: a layer has no dense MLP (mixture of experts, state-space model), layers differ
            in width, or the activation function is not positive exactly where its argument is.
    """
    hooked = model_family(model) == "hooked"
    blocks = getattr(model, "blocks", None)
    if blocks is None or len(blocks) == 0:
        raise _unsupported(model, "TransformerLens finds no transformer blocks in it")
    if has_routers(model):
        raise _unsupported(
            model,
            "it is a mixture of experts, and neurons inside them are counted by collect(model, "
            "corpus, site='expert_neurons') alone; site='experts' counts how often each expert is "
            "chosen",
        )
    layers = [_dense_mlp(model, block, layer) for layer, block in enumerate(blocks)]
    # Read from the output matrices: configurations may say something else.
    widths = {_width(mlp) for mlp in layers}
    if len(widths) > 1:
        raise _unsupported(
            model,
            f"its layers differ in width: {sorted(widths)} neurons, where one width is needed",
        )
    owners = layers if hooked else [mlp.original_component for mlp in layers]
    activations = tuple(_activation(model, owner) for owner in owners)
    return NeuronSite(
        n_layers=len(layers),
        d_mlp=widths.pop(),
        gated=getattr(layers[0], "W_gate" if hooked else "gate", None) is not None,
        activations=activations,
        activation_name=", ".join(dict.fromkeys(map(activation_name, activations))),
        sign_decides=all(decided_by_sign(one) for one in activations),
        pre=tuple(f"blocks.{layer}.mlp.hook_pre" for layer in range(len(layers))),
        post=tuple(f"blocks.{layer}.mlp.hook_post" for layer in range(len(layers))),
    )


def _width(mlp: Any) -> int:
    """Rows of W_out; it need not be in memory where Hugging Face's linear layer tells."""
    owner = getattr(getattr(mlp, "out", None), "original_component", None)
    return int(owner.weight.shape[1] if isinstance(owner, torch.nn.Linear) else mlp.W_out.shape[0])


def _unsupported(model: Any, reason: str) -> ModelError:
    name = getattr(model.cfg, "architecture", None) or type(model).__name__
    return ModelError(f"{name} cannot be used: {reason}. {SUPPORTED}")


def _dense_mlp(model: Any, block: Any, layer: int) -> Any:
    """The MLP of a block; raise unless it is a dense one."""
    mlp = getattr(block, "mlp", None)
    if mlp is None:
        raise _unsupported(
            model, f"block {layer} has no MLP of its own; it holds {_parts_of(block)}"
        )
    if model_family(model) == "hooked":
        if not hasattr(mlp, "hook_pre"):
            raise _unsupported(model, f"block {layer} is a mixture of experts")
        return mlp
    if "MoE" in type(mlp).__name__:
        raise _unsupported(
            model,
            f"block {layer} is a mixture of experts whose router is no module of its own, so "
            "neither its choices nor the neurons inside are counted",
        )
    first, last = first_projection(mlp), getattr(mlp, "out", None)
    if any(getattr(part, "original_component", None) is None for part in (mlp, first, last)):
        raise _unsupported(
            model,
            f"block {layer} has no MLP of two matrices and an activation (TransformerLens reads a "
            f"{type(mlp).__name__})",
        )
    return mlp


def _parts_of(block: Any) -> str:
    """The names of what a block is made of, as Hugging Face calls it."""
    own = getattr(block, "original_component", None) or block
    return ", ".join(name for name, _ in own.named_children()) or "nothing"


def first_projection(mlp: Any) -> Any:
    """The bridge component whose output is ``hook_pre``: the gate, or the input if ungated."""
    return getattr(mlp, "gate", None) or getattr(mlp, "in", None)


def _activation(model: Any, owner: Any) -> ActivationFunction:
    """The module's own activation function; raise where it names none."""
    named = [getattr(owner, name, None) for name in ACTIVATION_NAMES]
    found: Any = next(filter(callable, named), None)
    if found is None:
        raise _unsupported(model, f"{type(owner).__name__} names no activation function")
    return found


def decided_by_sign(activation: Any) -> bool:
    """Whether an activation function is positive exactly where its argument is.

    It is evaluated once a call, however often the call finds the neurons.

    Raises:
        ModelError: it is not positive above zero, or never 0 or less: then "active" says nothing.
    """
    return once_a_call(activation, "decided by its sign", lambda: _evaluated(activation))


def _evaluated(activation: Any) -> bool:
    """`decided_by_sign` on a grid from -20 to 20."""
    weights = activation.state_dict().values() if isinstance(activation, torch.nn.Module) else ()
    place = next((weight.device for weight in weights), torch.device("cpu"))
    points = torch.linspace(-20, 20, 4001, device=place)
    with torch.no_grad():
        active = activation(points) > 0
    if not active[points > 0].all() or active[points != 0].all():
        raise ModelError(
            f"{activation_name(activation)} is not positive exactly where its argument is, nor "
            "does it tell active from silent otherwise: it has to be above 0 for every argument "
            "above 0, and not for all below"
        )
    return torch.equal(active, points > 0)


def activation_name(activation: Any) -> str:
    """What provenance calls an activation function."""
    return getattr(activation, "__name__", None) or type(activation).__name__


@torch.inference_mode()
def verify_neuron_hooks(model: Any, tokens: torch.Tensor | None = None) -> HookProof:
    """Prove on one batch that the hooks of a model are where `neuron_site` says.

    Every hook must fire once, its tensor must be d_mlp wide, ``act_fn(hook_pre)`` (times the
    linear branch) must be ``hook_post``, and ``hook_post @ W_out + b_out`` the MLP's output. The
    blocks must add up: beside attention and MLP nothing is added to the stream.

    Args:
        model: a TransformerLens model.
        tokens: int64 [batch, pos] ids; by default one row of 16 ids spread over the vocabulary.

    Returns:
        How often the hooks fired and how far the two identities are from exact.

    Raises:
        ModelError: a hook did not fire once, is not d_mlp wide, or an identity does not hold.
    """
    ids = probe_tokens(model) if tokens is None else tokens.to(input_device(model))
    with proving_neurons(model) as proofs:
        model(ids, return_type="logits")
    return proofs[0]


@contextmanager
def proving_neurons(model: Any) -> Iterator[list[HookProof]]:
    """`verify_neuron_hooks` for the one forward pass that runs in the block.

    Yields:
        A list that holds the proof when the block has ended.

    Raises:
        ModelError: as `verify_neuron_hooks`, at the end of the block.
    """
    site, hooked = neuron_site(model), model_family(model) == "hooked"
    linear = [linear_branch(name) for name in site.pre] if site.gated else []
    outputs = [_output(layer, hooked) for layer in range(site.n_layers)]
    seen: dict[str, list[torch.Tensor]] = {
        name: [] for name in (*site.pre, *site.post, *linear, *outputs)
    }
    proofs: list[HookProof] = []

    def keep(name: str) -> Callable[..., None]:
        return lambda tensor, hook: seen[name].append(tensor)

    with (
        nullcontext([]) if hooked else summing_blocks(model) as surplus,
        model.hooks(fwd_hooks=[(name, keep(name)) for name in seen]),
    ):
        yield proofs
    proofs.append(_proof(model, site, seen))
    require_no_surplus(model, surplus)


@torch.inference_mode()
def _proof(model: Any, site: NeuronSite, seen: dict[str, list[torch.Tensor]]) -> HookProof:
    """The proof from what the hooks of one pass saw, by name."""
    hooked = model_family(model) == "hooked"
    if wrong := {name: len(tensors) for name, tensors in seen.items() if len(tensors) != 1}:
        raise ModelError(f"hooks must fire once a forward pass, but fired: {wrong}")
    for name in (*site.pre, *site.post):
        if (width := seen[name][0].shape[-1]) != site.d_mlp:
            raise ModelError(f"{name} is {width} wide, but d_mlp is {site.d_mlp}: not the neurons")

    activations, products = [], []
    for layer, block in enumerate(model.blocks):
        mlp, post = block.mlp, seen[site.post[layer]][0]
        expected = site.activations[layer](seen[site.pre[layer]][0])
        if site.gated:
            expected = expected * seen[linear_branch(site.pre[layer])][0]
            if hooked:  # adds the bias of the linear branch to the product
                expected = expected + mlp.b_in
        activations.append(_relative(expected, post))
        with in_memory(mlp):
            product = post @ mlp.W_out
            if getattr(mlp, "b_out", None) is not None:
                product = product + mlp.b_out
        products.append(_relative(product, seen[_output(layer, hooked)][0]))
    activation, output = max(activations), max(products)
    tolerance = identity_tolerance(seen[site.pre[0]][0].dtype)
    if activation > tolerance or output > tolerance:
        raise ModelError(
            f"the neuron hooks of {type(model).__name__} do not hold what they name: "
            f"act_fn(hook_pre) differs from hook_post by {activation:.1e} and hook_post @ W_out "
            f"from the MLP's output by {output:.1e} of the largest entry (allowed "
            f"{tolerance:.0e}){_multipliers(model)}; remove other hooks, or report the architecture"
        )
    return HookProof(fired=1, mlp_difference=output, activation_difference=activation)


def identity_tolerance(dtype: torch.dtype) -> float:
    """How far a layer that is computed again may be from the model's, of the largest entry.

    Measured: 0 to 8e-7 in fp32 over 51 architectures; half precision keeps 8 to 11 bits.
    """
    return {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 3e-2)


def _multipliers(model: Any) -> str:
    """What the MLP of the first block multiplies by, such as Falcon-H1's, or nothing."""
    own = vars(getattr(model.blocks[0].mlp, "original_component", None) or model.blocks[0].mlp)
    held = [f"{name} {value:g}" for name, value in own.items() if "multiplier" in name]
    return f"; its MLP multiplies within ({', '.join(held)})" if held else ""


def linear_branch(pre: str) -> str:
    """The hook of the linear branch beside that of the activation's argument."""
    return pre.replace("hook_pre", "hook_pre_linear")


def _output(layer: int, hooked: bool) -> str:
    """The hook of W_out's own output: some architectures add a norm or the residual to it."""
    return f"blocks.{layer}.{'hook_mlp_out' if hooked else 'mlp.out.hook_out'}"


def probe_tokens(model: Any) -> torch.Tensor:
    """One row of ids spread over the vocabulary, without the first few (special) ones."""
    size, length = int(model.cfg.d_vocab), min(16, context_length(model))
    ids = torch.linspace(min(4, size - 1), size - 1, length, device=input_device(model))
    return ids.long()[None]


def _relative(ours: Activation, theirs: Activation) -> float:
    largest = theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny)
    return float((ours.reshape(theirs.shape) - theirs).abs().max() / largest)
