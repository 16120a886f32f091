"""Multilingual alignment: a model taught to answer in every language as it answers in one.

    respond           several answers to every problem, in every language       responses.jsonl
      -> score_responses   how faithful each is to the pivot's answer           scores.jsonl
      -> preference_pairs  a better and a worse answer to the same problem      pairs.jsonl
      -> align             a low-rank adapter, trained to prefer the better     adapter

This is MAPO (She et al. 2024, arXiv 2401.06838), by which arXiv 2505.21505 aligns its models. Each
step is a function whose value is a file that the next one reads; each goes on where it was
interrupted. `lensneurons.alignment.controls` says which control answers which question:
`random_adapter`, and `align` on ``pairs.shuffled()``. What alignment changed about the neurons is
what `lensneurons.compare` is for.

>>> problems = ln.load_corpus("problems.jsonl", languages=["zh", "de", "en"])   # doctest: +SKIP
>>> asked = problems.select(["zh", "de"])                                       # doctest: +SKIP
>>> responses = ln.alignment.respond(model, asked, run_dir="runs/zh")           # doctest: +SKIP
>>> scored = ln.alignment.score_responses(responses, problems, pivot="en")      # doctest: +SKIP
>>> pairs = ln.alignment.preference_pairs(scored)  # control: pairs.shuffled()  # doctest: +SKIP
>>> run = ln.alignment.align("Qwen/Qwen3-0.6B-Base", pairs, "runs/adapter")     # doctest: +SKIP
>>> ln.plots.alignment_curves(run)                                              # doctest: +SKIP
>>> aligned = ln.load_model("Qwen/Qwen3-0.6B-Base", adapter=run.folder)         # doctest: +SKIP
>>> control = ln.alignment.random_adapter(run.folder, "runs/random")            # doctest: +SKIP
>>> after = ln.collect(aligned, corpus)                                         # doctest: +SKIP
>>> change = ln.compare(statistics, after, trained=["zh", "de"])                # doctest: +SKIP
>>> ln.claims(change)  # a verdict on each claim of the paper                   # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
