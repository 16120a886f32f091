"""Multilingual alignment: a model taught to answer in every language as it answers in one.

    respond           several answers to every problem, in every language       responses.jsonl
      -> score_responses   how faithful each is to the pivot's answer           scores.jsonl
      -> preference_pairs  a better and a worse answer to the same problem      pairs.jsonl
      -> align             a low-rank adapter, trained to prefer the better     adapter

This is MAPO (She et al. 2024, arXiv 2401.06838), by which arXiv 2505.21505 aligns its models. Each
step is a function whose value is a file that the next one reads; each goes on where it was
interrupted. What alignment changed about the neurons is what `lensneurons.compare` is for.
"""
