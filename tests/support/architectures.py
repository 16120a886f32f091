"""The table of verified architectures, ``assets/architectures.md``.

    python tests/support/architectures.py > assets/architectures.md

Every row is measured on a tiny random model of its architecture, with three languages, against a
plain Hugging Face model: the counts of `collect` against PyTorch hooks on one text at a time, an
ablation against zeroed rows of W_out. A row that does not hold is written as "no", never left out.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from edited import IDS, draw_set, drawn_units, logits_of, zero_rows
from every_class import outcomes
from mixtures import count_inside, count_routing, multiplied
from oracle import count_by_hand

from lensneurons.activations.collection import collect
from lensneurons.alignment.training import target_modules
from lensneurons.errors import ModelError
from lensneurons.interventions.editing import ablate
from lensneurons.interventions.export import export
from lensneurons.models.expert_neurons import expert_neuron_site, shared_neuron_site
from lensneurons.models.forward import attention_implementation, forward_path
from lensneurons.models.loading import load_model
from lensneurons.models.routers import expert_site
from lensneurons.models.sites import NeuronSite, neuron_site

HEADER = """\
# Verified architectures

Made by `python tests/support/architectures.py > assets/architectures.md`; do not edit.
Measured with {versions}.

Each row is a model of three layers with random weights, made from its Hugging Face configuration.
The texts are of three languages, and their lengths very unequal. Llama stands also for the models
that share its class, such as EuroLLM, Salamandra and InternLM 3; "(vision)" is the language model
out of a model with a vision tower. Every model passed the check that its blocks add to the stream
nothing but attention and MLP.

* **gated**: whether `hook_post` is `act_fn(hook_pre)` times a linear branch.
* **activation**: the class of the module's own activation function.
* **first matrix**: the Hugging Face module whose output is `hook_pre`.
* **width**: the entry of the configuration that says how many neurons a layer has.
* **path**: how `collect` runs the model, and its attention kernel. *view* is the plain Hugging Face
  model on the same weights, with the kernel that Hugging Face chooses; *bridge* is the forward pass
  of TransformerLens.
* **counts**: how many of the counts [layer, neuron, language] equal those of PyTorch hooks on the
  plain Hugging Face model, one text at a time, without batch or padding.
* **ablation**: whether `ablate` gives the logits of a plain Hugging Face model whose rows of W_out
  are zero, to 2e-6 of the largest logit.
* **adapter**: the linear maps that `align` adapts by default.
* **difference**: the largest of a logit after the ablation, as a share of the largest logit; 0 is
  bitwise equality.

Of the outputs of linear maps (`site="q"` and the like) the tests compare eleven families.
"""
MIXTURES = """\
## Mixtures of experts

Tiny random models as above. The routers and experts of a plain Hugging Face model are read by
hooks, one text at a time, and the neurons inside computed by hand from its weights.

* **experts**: routed ones of a layer, and how many a token is sent to.
* **routing**: counts of `site="experts"`, [layer, expert, language], that are equal.
* **inside**, **shared**: counts of `site="expert_neurons"` and `"shared_neurons"`, [layer, neuron,
  language], that are equal; "-" where no MLP stands beside the experts.
* **ablation**: whether `ablate` of neurons inside experts (and shared ones) gives the logits of a
  plain model whose columns of the last matrix are zero, to 5e-6 of the largest logit.
* **difference**: the largest of a logit there, as a share of the largest logit.
* **export**: whether the folder that `export` writes of it gives the same in plain transformers.
"""
REFUSED = """\
## Refused

Models with parts that are not counted, and what `load_model` says of each (before the list of what
is supported).
"""
CLASSES = """\
## The classes of transformers

Every class that transformers has for causal language models, with sizes guessed by their names.
"""
ALLOWED = 2e-6  # of the largest logit, in fp32; as in tests/interventions/
ALLOWED_INSIDE = 5e-6  # what experts gave is corrected, in place of another sum


def measure(architecture: str, folder: Path) -> dict[str, str]:
    """The row of an architecture, by column, from a model saved in a folder."""
    model = load_model(folder, device="cpu")
    site, path = neuron_site(model), forward_path(model)
    plain = tiny.load_plain(folder, attn_implementation="eager")
    difference, effect = compare_ablation(architecture, model, plain, site)
    way = "view" if path == "native" else "bridge"
    return {
        "architecture": architecture,
        "gated": "yes" if site.gated else "no",
        "activation": site.activation_name,
        "first matrix": first_matrix(architecture, plain),
        "width": f"`{width_entry(plain.config.get_text_config(decoder=True), site)}`",
        "path": f"{way}, {attention_implementation(model, path)}",
        "counts": compare_counts(architecture, model, folder),
        "ablation": "equal" if difference <= ALLOWED < effect else "no",
        "adapter": adapter_targets(plain),
        "difference": f"{difference:.0e}" if difference else "0",
    }


def first_matrix(architecture: str, plain: Any) -> str:
    """Where in a layer the module of the oracle stands, such as ``mlp.gate_proj``."""
    module, read = tiny.first_matrix(plain, architecture)[0]
    name = next(name for name, other in plain.named_modules() if other is module)
    part = "first half of " if read(torch.zeros(1, 2)).shape[-1] == 1 else ""
    return f"{part}`{re.split(r'[.][0-9]+[.]', name)[-1]}`"


def width_entry(config: Any, site: NeuronSite) -> str:
    """The entry of the configuration that holds the width, or how the width follows from it."""
    entries = [name for name, value in config.to_dict().items() if value == site.d_mlp]
    return entries[0] if entries else f"{site.d_mlp // config.hidden_size} * hidden_size"


def compare_counts(architecture: str, model: Any, folder: Path) -> str:
    """How many counts are those of the oracle, of how many."""
    corpus = tiny.tiny_corpus()
    ours = collect(model, corpus, progress=False)
    oracle = count_by_hand(folder, architecture, corpus)
    return f"{int(np.sum(ours.counts == oracle.counts))} of {oracle.counts.size}"


@torch.no_grad()
def compare_ablation(
    architecture: str, model: Any, plain: Any, site: NeuronSite
) -> tuple[float, float]:
    """Largest differences of a logit, as shares of the largest one; rows of `plain` become zero.

    Returns:
        Between `ablate` and the zeroed rows; between the zeroed rows and the model as it was.
    """
    neurons, whole = draw_set(d_mlp=site.d_mlp), logits_of(plain, IDS)
    zeroed = logits_of(zero_rows(plain, architecture, neurons.by_layer()), IDS)
    with ablate(model, neurons):
        ours = logits_of(model, IDS)
    differences = [(other - zeroed).abs().max() / zeroed.abs().max() for other in (ours, whole)]
    return float(differences[0]), float(differences[1])


def adapter_targets(plain: Any) -> str:
    """The names of the linear maps that `align` adapts, under the name of their module."""
    target = target_modules(plain, "attention")
    found = [name for name, _ in plain.named_modules() if re.fullmatch(target, name)]
    if not found:
        return "no"
    owner = found[0].split(".")[-2]
    ends = sorted({f"`{name.split('.')[-1]}`" for name in found})
    return f"`{owner}`: {', '.join(ends)}"


def measure_mixture(architecture: str, folder: Path) -> dict[str, str]:
    """The row of a mixture of experts, by column, from a model saved in a folder."""
    model, corpus = load_model(folder, device="cpu"), tiny.tiny_corpus()
    whole = expert_site(model)
    routing, *_ = count_routing(folder, architecture, corpus)
    inside, *_ = count_inside(folder, architecture, corpus)
    sites = {"routed": expert_neuron_site(model)}
    if architecture in tiny.SHARED_MLPS:
        sites["shared"] = shared_neuron_site(model)
    differences, effects, exported = [], [], []
    for name, site in sites.items():
        neurons, before = drawn_units(site), logits_of(model)
        wanted = logits_of(multiplied(folder, architecture, neurons))
        with ablate(model, neurons):
            found = logits_of(model)
        written = export(model, neurons, folder / f"without {name}")
        differences.append(_share(found, wanted))
        effects.append(_share(before, wanted))
        again = tiny.load_plain(written, attn_implementation="eager")
        exported.append(_share(logits_of(again), wanted))
    equal = {
        "routing": compare(model, "experts", routing),
        "inside": compare(model, "expert_neurons", inside["routed"]),
        "shared": compare(model, "shared_neurons", inside["shared"]) if len(sites) > 1 else "-",
    }
    return {
        "architecture": architecture,
        "experts": f"{whole.n_experts}, top {whole.top_k}",
        **equal,
        "ablation": "equal" if max(differences) <= ALLOWED_INSIDE < min(effects) else "no",
        "difference": f"{max(differences):.0e}",
        "export": "equal" if max(exported) <= ALLOWED_INSIDE else "no",
    }


def compare(model: Any, site: Any, counts: np.ndarray) -> str:
    """How many counts of a site are those by hand, of how many."""
    ours = collect(model, tiny.tiny_corpus(), site=site, progress=False).counts
    return f"{int(np.sum(ours == counts.reshape(ours.shape)))} of {ours.size}"


def _share(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def lines_of_mixtures(folder: Path) -> Iterator[str]:
    """The lines of the table of mixtures, each as soon as it is measured."""
    yield from ("", MIXTURES)
    for number, name in enumerate((*tiny.EXPERTS, *tiny.MORE_EXPERTS)):
        row = measure_mixture(name, tiny.save_model(name, folder / name))
        if number == 0:
            yield from (line(row), "|" + " --- |" * len(row))
        yield line(row.values())


def line(cells: Iterable[str]) -> str:
    """A line of the table."""
    return f"| {' | '.join(cells)} |"


def refusal_of(folder: Path) -> str:
    """Why an architecture is refused, as the error says it."""
    try:
        load_model(folder, device="cpu")
    except ModelError as error:
        return re.split(r"\. Supported are", str(error))[0].replace(str(folder), "FOLDER")
    return "not refused"


def write_classes() -> list[str]:
    """What comes of each of transformers' classes that is not loaded, in lines of Markdown."""
    found = outcomes()
    without = [name for name, said in found.items() if "has no adapter" in said]
    unknown = {name: said for name, said in found.items() if said.startswith("not made small")}
    rest = {
        name: said
        for name, said in found.items()
        if said != "loads" and name not in without and name not in unknown
    }
    loaded = [name for name, said in found.items() if said == "loads"]
    return [
        line(["class", "refused, because"]),
        "| --- | --- |",
        *(line([name, said]) for name, said in rest.items()),
        "",
        f"TransformerLens has no adapter for {', '.join(without)}.",
        "",
        f"These load: {', '.join(loaded)}.",
        "",
        f"Not tried, since the script could not make a small model: {', '.join(unknown)}.",
    ]


def lines_of_page() -> Iterator[str]:
    """The lines of the whole page, each as soon as it is measured."""
    names = ("torch", "transformers", "transformer-lens")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    yield HEADER.format(versions=versions)
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate((*tiny.ARCHITECTURES, *tiny.FURTHER)):
            row = measure(name, tiny.save_model(name, Path(folder) / name))
            if number == 0:
                yield from (line(row), "|" + " --- |" * len(row))
            yield line(row.values())
        yield from lines_of_mixtures(Path(folder))
        yield from ("", REFUSED, line(["model", "the error says"]), "| --- | --- |")
        for name in tiny.UNSUPPORTED:
            yield line([name, refusal_of(tiny.save_model(name, Path(folder) / name))])
    yield from ("", CLASSES, *write_classes())


if __name__ == "__main__":
    for one in lines_of_page():
        sys.stdout.write(f"{one}\n")
        sys.stdout.flush()
