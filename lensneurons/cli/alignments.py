"""What the commands do that align a model and read what that changed: align, compare."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from lensneurons.cli.commands import open_corpus, open_model, require_writable, say, say_json

if TYPE_CHECKING:
    from lensneurons.alignment.responses import Scorer
    from lensneurons.comparison.before_after import Comparison

SETTINGS = (
    "steps", "batch", "micro_batch", "learning_rate", "beta", "rank", "alpha",
    "checkpoint_every", "seed",
)  # fmt: skip


def align(options: Namespace) -> None:
    """Sample, score, pair and train, each step in a folder of its own under ``--out``."""
    from lensneurons.alignment.pairs import preference_pairs
    from lensneurons.alignment.responses import require_answerable, respond, score_responses
    from lensneurons.alignment.training import DPOSettings, align, require_extra
    from lensneurons.languages.codes import language_code

    require_extra()
    require_writable(options.out)
    settings: Any = {name: getattr(options, name) for name in SETTINGS}
    DPOSettings(**settings)
    pivot = language_code(options.pivot)
    corpus = open_corpus(options, list(dict.fromkeys([*options.languages, pivot])))
    require_answerable(corpus, options.samples, options.temperature)
    scorer = _scorer(options.scorer, pivot)
    responses = respond(
        open_model(options, options.dtype),
        corpus.select(options.languages),
        samples=options.samples,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        run_dir=options.out / "responses",
    )
    say(repr(responses))
    scored = score_responses(
        responses, corpus, pivot=pivot, scorer=scorer, run_dir=options.out / "scores"
    )
    say(repr(scored))
    pairs = preference_pairs(
        scored,
        languages=options.languages,
        per_item=options.per_item,
        per_language=options.per_language,
        seed=options.seed,
    )
    pairs = pairs.shuffled(seed=options.seed) if options.shuffled else pairs
    pairs.save(options.out / "pairs.jsonl")
    say(repr(pairs))
    run = align(
        options.model,
        pairs,
        options.out / "adapter",
        dtype=options.dtype,
        device=options.device,
        revision=options.revision,
        local_files_only=options.offline,
        **settings,
    )
    say(f"{run!r}\nadapter: {run.folder}")


def compare(options: Namespace) -> None:
    """Print what changed between two runs, and every claim of the paper with its verdict."""
    from lensneurons.activations.statistics import ActivationStatistics
    from lensneurons.comparison.before_after import compare
    from lensneurons.comparison.paper_claims import claims
    from lensneurons.neurons.identification import identify
    from lensneurons.neurons.parts import divide_layers

    if options.out is not None:
        require_writable(options.out)
    before, after = (ActivationStatistics.load(run) for run in (options.before, options.after))
    tau: Any = options.tau if options.tau is not None else "before"
    found = compare(
        before,
        after,
        tau=tau,
        percentile=options.percentile,
        trained=options.trained,
        pivot=options.pivot,
    )
    parts = divide_layers(
        identify(before, tau=options.tau, percentile=options.percentile),
        before if before.n_groups > 1 else None,
    )
    judged = claims(found, parts=parts if parts.found else None)
    if options.out is not None:
        found.save(options.out / "comparison.safetensors")
        judged.save(options.out / "claims.json")
        _write_tables(found, options)
    if options.json:
        table = judged.to_pandas().to_dict("records")
        say_json({"comparison": found.description, "claims": table})
    else:
        columns = ["claim", "expected", "measured", "low", "high", "p", "verdict"]
        rows = judged.to_pandas()[columns].round(4)
        table = rows.to_string(index=False, na_rep="")
        say(f"{found!r}\n\n{judged!r}\n\n{table}")


def _scorer(name: str, pivot: str) -> Scorer | str:
    """The measure of that name, or of the translation model of that name."""
    from lensneurons.alignment.translation import translation_scorer

    return name if name == "consistency" else translation_scorer(name, pivot=pivot)


def _write_tables(found: Comparison, options: Namespace) -> None:
    """Every table of a comparison."""
    from lensneurons.comparison.before_after import TABLES
    from lensneurons.values.files import replacing

    for table in TABLES:
        with replacing(options.out / f"{table}.csv") as path:
            found.to_pandas(table).to_csv(path, index=False)
