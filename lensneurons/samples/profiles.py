"""The layer profile of the paper's model, recomputed from the counts that its authors published.

Each layer has three numbers: its neurons that exceed tau in one language, in several, and in all of
them (arXiv 2505.21505, section 3). They are what `identify` and `LanguageNeurons.layer_profile`
give for the published counts, with the default options, and stand beside profiles of other models:

>>> paper = published_profile("mistral-7b")
>>> paper.profile[0].tolist()                      # specific, related, agnostic in the first layer
[1922, 3743, 181]

What this does not show: a profile depends on the texts that were counted, so of two models that
read different texts no layer can be compared one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lensneurons.errors import choose
from lensneurons.neurons.language_neurons import LAYER_CLASSES
from lensneurons.options import plain_options
from lensneurons.shapes import LayerProfile
from lensneurons.values.base import Overview, Value


@dataclass(frozen=True, eq=False, repr=False)
class PublishedProfile(Value):
    """Neurons of each class by layer, from counts that somebody published.

    Attributes:
        name: of the model.
        profile: int64 [layer, 3], specific, related and agnostic neurons among all neurons.
        d_mlp: neurons a layer.
        languages: codes.
        tau: the bar.
        texts: what was counted.
        source: who published the counts, and where.
    """

    FILE_KIND: ClassVar = "published profile"

    name: str
    profile: LayerProfile
    d_mlp: int
    languages: tuple[str, ...]
    tau: float
    texts: str
    source: str

    def _brief(self) -> str:
        return f"{self.name}: {len(self.profile)} layers x {self.d_mlp} neurons; {self.source}"

    def _overview(self) -> Overview:
        rows = [(layer, *counts) for layer, counts in enumerate(self.profile.tolist())]
        title = f"{self.name}: {self.texts}, tau {self.tau:.4f}; {self.source}"
        return Overview(title, ("layer", *LAYER_CLASSES), rows)


_MISTRAL = (
    (1922, 3743, 181), (1370, 1891, 106), (1885, 2277, 103), (1133, 1169, 114),
    (827, 974, 192), (385, 675, 194), (308, 564, 253), (241, 519, 253),
    (229, 495, 270), (228, 595, 307), (236, 556, 334), (246, 616, 431),
    (215, 536, 417), (232, 571, 443), (239, 691, 555), (254, 553, 445),
    (194, 487, 348), (228, 493, 423), (376, 592, 316), (415, 555, 261),
    (370, 382, 151), (340, 218, 92), (341, 222, 66), (346, 185, 48),
    (350, 169, 50), (398, 193, 51), (746, 376, 54), (1213, 611, 66),
    (1690, 941, 108), (2014, 1639, 136), (2180, 2346, 284), (2084, 4390, 745),
)  # fmt: skip
_PUBLISHED = {
    "mistral-7b": PublishedProfile(
        name="Mistral-7B of the paper (MistralMathOctopus, before alignment)",
        profile=np.array(_MISTRAL, np.int64),
        d_mlp=14336,
        languages=("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw"),
        tau=0.564436,
        texts="tokens of the model's own responses to MGSM",
        source=(
            "recomputed from the counts of arXiv 2505.21505, "
            "github.com/NJUNLP/Language-Neurons-Alignment"
        ),
    )
}


@plain_options
def published_profile(name: str) -> PublishedProfile:
    """Give the layer profile of a published model.

    Args:
        name: ``"mistral-7b"``.

    Raises:
        LensNeuronsError: no such profile; the message lists those that are there.
    """
    return _PUBLISHED[choose(name, _PUBLISHED, "name")]
