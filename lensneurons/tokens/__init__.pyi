from .chat import chat_corpus as chat_corpus
from .prepared import PreparedCorpus as PreparedCorpus
from .prepared import prepare as prepare
