"""Build the reference of the public API from its docstrings: ``python docs/make.py build/docs``.

pdoc does the work. What is particular to this package stands here: its names are loaded when they
are first used, so each is asked for before pdoc looks; and the page of the package shows them by
what a reader wants to do (`GROUPS`), not by the alphabet. All is one folder of files that need no
network.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

# In the order in which a reader meets them. A name of the package that no row holds is shown in a
# last group, "More".
GROUPS: dict[str, tuple[str, ...]] = {
    "Load a model": ("load_model", "demo_adapters", "neuron_site", "verify_neuron_hooks"),
    "Read a corpus": ("load_corpus", "build_corpus", "ParallelCorpus", "Item"),
    "Count": ("collect", "ActivationStatistics", "read_published_counts", "read_published_mask"),
    "Identify language neurons": ("identify", "LanguageNeurons", "NeuronSet"),
    "Divide the layers": ("divide_layers", "LayerParts"),
    "Look closer at a neuron": (
        *("describe", "describe_all", "neuron_facts", "NeuronCard", "NeuronFacts"),
        *("top_contexts", "Contexts"),
        *("promoted_tokens", "importance", "Importance"),
    ),
    "Change what neurons do": ("ablate", "scale", "steer", "patch"),
    "Measure a model": (
        *("nll", "CorpusNLL", "accuracy", "Accuracy", "mean_difference", "accuracy_difference"),
        *("generate", "detect_language"),
    ),
    "Experiments": (
        *("ablation_matrix", "AblationMatrix", "steering_curve", "SteeringCurve"),
        *("answer_pairs", "PatchPair", "carry_over", "CarryOver", "logit_lens", "LensCurves"),
    ),
    "Compare two runs": (
        *("compare", "Comparison", "compare_series", "ComparisonSeries", "claims", "Claims"),
        *("Claim", "stability", "compare_halves", "Stability"),
    ),
    "Align a model": (
        *("respond", "SampledResponses", "score_responses", "translation_scorer"),
        *("ScoredResponses", "preference_pairs", "PreferencePairs", "align", "Alignment"),
    ),
    "Intervals": ("bootstrap", "bootstrap_difference", "jackknife", "intervals"),
    "Figures and pages": ("plots", "views", "report"),
    "Errors": ("LensNeuronsError",),
}
MORE = "More"
# Modules with a page of their own, beside that of the package.
MODULES = ("intervals", "plots", "views", "page", "errors")
# What an example says to the test runner, and not to a reader.
DIRECTIVE = re.compile(r'\s*<span class="c1"># doctest: \+\w+</span>')


def build(folder: Path) -> tuple[Path, ...]:
    """Write the reference into a folder, and return the pages.

    Args:
        folder: new, or one of an earlier build, whose pages are replaced.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # importing is all that happens
    import pdoc.doc
    import pdoc.render

    package = load_package()
    names = [package.__name__, *(f"{package.__name__}.{name}" for name in MODULES)]
    modules = {name: pdoc.doc.Module.from_name(name) for name in names}
    pdoc.render.configure(
        docformat="google",
        template_directory=Path(__file__).parent / "templates",
        footer_text=f"lensneurons {package.__version__}",
    )
    pdoc.render.env.globals["groups"] = make_groups(package.__all__, modules)
    for name, module in modules.items():
        page = DIRECTIVE.sub("", pdoc.render.html_module(module, modules))
        write(folder / f"{name.replace('.', '/')}.html", page)
    write(folder / "index.html", pdoc.render.html_index(modules))
    write(folder / "search.js", pdoc.render.search_index(modules))
    return tuple(sorted(folder.rglob("*.html")))


@dataclass(frozen=True)
class Entry:
    """One name of the package in the table of its group."""

    name: str
    kind: str
    href: str
    sentence: str


def load_package() -> ModuleType:
    """The package with all of its names loaded, so that pdoc finds them where it looks."""
    package = import_module("lensneurons")
    for name in package.__all__:
        getattr(package, name)
    return package


def make_groups(exported: list[str], modules: dict[str, Any]) -> dict[str, list[Entry]]:
    """Each group with an entry for every one of its names that is exported, the rest as "More"."""
    grouped = {name for names in GROUPS.values() for name in names}
    left = tuple(name for name in exported if name not in grouped)
    groups = GROUPS | ({MORE: left} if left else {})
    return {
        title: [make_entry(name, modules) for name in names if name in exported]
        for title, names in groups.items()
    }


def make_entry(name: str, modules: dict[str, Any]) -> Entry:
    """The entry of an exported name: of a module, or of a function or class of the package."""
    package, *_ = modules
    own = modules.get(f"{package}.{name}")
    if own is not None and name not in modules[package].members:
        return Entry(name, "module", f"{package}/{name}.html", first_sentence(own.docstring))
    found = modules[package].members[name]
    return Entry(name, found.kind, f"#{name}", first_sentence(found.docstring))


def first_sentence(docstring: str) -> str:
    """What a thing is, in its first sentence."""
    paragraph = inspect.cleandoc(docstring or "").split("\n\n")[0]
    return " ".join(paragraph.split()).split(". ")[0].rstrip(".").replace("`", "")


def write(path: Path, text: str) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for page in build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs")):
        sys.stdout.write(f"{page}\n")
