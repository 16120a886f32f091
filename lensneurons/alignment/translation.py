"""Translation likelihood: how well a text predicts the parallel response, as MAPO scores answers.

    score = mean over the tokens t of the reference of log p(t | text, tokens before t)

The model is a Hugging Face encoder-decoder for many languages whose tokenizer marks them by codes:
NLLB and its kin (``zho_Hans``) or M2M-100 (``zh``). MAPO takes NLLB-200-distilled-600M, text to
English. The score is a mean over tokens, not a sum, so that references of unequal length can be
compared. Within one item it makes no difference: all answers to it have the same reference.

>>> scorer = translation_scorer("facebook/nllb-200-distilled-600M")      # doctest: +SKIP
>>> score_responses(responses, corpus, scorer=scorer)                    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import langcodes
import torch

from lensneurons.alignment.responses import Parallel, Scorer
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.languages.codes import language_code
from lensneurons.options import plain_options

# FLORES-200 names one member where ISO 639-3 has a macrolanguage.
_MEMBERS = {
    "ara": "arb", "aze": "azj", "est": "ekk", "fas": "pes", "lav": "lvs", "mon": "khk",
    "msa": "zsm", "nep": "npi", "nor": "nob", "ori": "ory", "orm": "gaz", "pus": "pbt",
    "sqi": "als", "swa": "swh", "uzb": "uzn", "yid": "ydd",
}  # fmt: skip


@plain_options
def translation_scorer(
    name_or_path: str | Path,
    *,
    pivot: str = "en",
    codes: Mapping[str, str] | None = None,
    batch_tokens: int = 4096,
    device: str | None = None,
    languages: Sequence[str] = (),
    local_files_only: bool = False,
) -> Scorer:
    """Load a translation model as a scorer for `score_responses`.

    Args:
        name_or_path: a multilingual encoder-decoder, on the hub or in a folder.
        pivot: the language of the references.
        codes: the model's code of a language, where it cannot be found by its rules.
        batch_tokens: largest rectangle, texts times (longest text + longest reference).
        device: where to put it; None takes the GPU where there is one.
        languages: those of the answers, so that one that the model does not know is found here.
        local_files_only: never ask the hub; only what is already in its cache.

    Returns:
        A function from a list of `Parallel` to mean log likelihoods in nats a token, at most 0.

    Raises:
        ModelError: no such model, or one whose tokenizer knows no codes of languages.
        LensNeuronsError: it does not know the pivot language, or one of `languages`.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    name = str(name_or_path)
    local: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": False}
    try:
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32, **local)
        tokenizer = AutoTokenizer.from_pretrained(name, **local)
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{name!r} could not be loaded: {reason}. A scorer is a translation model such as "
            "facebook/nllb-200-distilled-600M"
        ) from error
    if not hasattr(tokenizer, "src_lang"):
        raise ModelError(f"{name!r} translates one pair of languages: a scorer needs many")
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    target = _code(language_code(pivot), tokenizer, codes or {})
    for language in languages:
        _code(language_code(language), tokenizer, codes or {})

    def score(parallels: Sequence[Parallel]) -> list[float]:
        known = {p.language: _code(p.language, tokenizer, codes or {}) for p in parallels}
        found: dict[Parallel, float] = {}
        for batch in _batches(dict.fromkeys(parallels), batch_tokens):
            source = known[batch[0].language]
            found |= zip(batch, _likelihoods(model, tokenizer, batch, source, target), strict=True)
        return [found[parallel] for parallel in parallels]

    score.__name__ = f"translation likelihood, {name}"
    return score


def _code(language: str, tokenizer: Any, codes: Mapping[str, str]) -> str:
    """The model's code of a language.

    Raises:
        LensNeuronsError: no code of it is known.
    """
    three = langcodes.Language.get(language).to_alpha3()
    script = langcodes.Language.get(language).maximize().script
    # FLORES-200's codes (``zho_Hans``), then the tag itself.
    rules = (f"{_MEMBERS.get(three, three)}_{script}", f"{three}_{script}", language)
    wanted = [codes[language]] if language in codes else [*rules, language.partition("-")[0]]
    known = tokenizer.get_vocab()
    for code in wanted:
        if code in known or f"__{code}__" in known:
            return code
    raise LensNeuronsError(
        f"the translation model has no code for {language!r} (looked for {', '.join(wanted)}): "
        f"give codes={{{language!r}: ...}}"
    )


def _batches(parallels: Mapping[Parallel, None], batch_tokens: int) -> Iterator[list[Parallel]]:
    """Texts of one language and of like length. Characters stand for tokens, which are fewer."""
    ordered = sorted(parallels, key=lambda p: (p.language, len(p.text), len(p.reference)))
    batch: list[Parallel] = []
    for parallel in ordered:
        longest = max(len(p.text) + len(p.reference) for p in (*batch, parallel))
        full = (len(batch) + 1) * longest > batch_tokens
        if batch and (full or parallel.language != batch[0].language):
            yield batch
            batch = []
        batch.append(parallel)
    if batch:
        yield batch


@torch.no_grad()
def _likelihoods(
    model: Any, tokenizer: Any, batch: Sequence[Parallel], source: str, target: str
) -> list[float]:
    """Mean log likelihood of each reference's tokens, its mark of language left out."""
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    encoded = tokenizer([p.text for p in batch], return_tensors="pt", padding=True)
    labels = tokenizer(text_target=[p.reference for p in batch], return_tensors="pt", padding=True)[
        "input_ids"
    ]
    counted = labels != tokenizer.pad_token_id
    marks = torch.tensor([tokenizer.convert_tokens_to_ids(c) for c in (target, f"__{target}__")])
    unknown = marks == tokenizer.unk_token_id
    counted &= ~torch.isin(labels, marks[~unknown])
    logits = model(**encoded.to(model.device), labels=labels.to(model.device)).logits.float().cpu()
    chosen = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return ((chosen * counted).sum(-1) / counted.sum(-1)).tolist()
