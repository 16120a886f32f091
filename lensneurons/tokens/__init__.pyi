from .prepared import PreparedCorpus as PreparedCorpus
from .prepared import prepare as prepare
