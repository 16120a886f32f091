from .answers import Accuracy as Accuracy
from .answers import accuracy as accuracy
from .answers import accuracy_difference as accuracy_difference
from .answers import mean_difference as mean_difference
from .generation import generate as generate
from .likelihood import CorpusNLL as CorpusNLL
from .likelihood import nll as nll
