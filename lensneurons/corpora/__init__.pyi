from .corpus import ParallelCorpus as ParallelCorpus
from .corpus import build_corpus as build_corpus
from .corpus import load_corpus as load_corpus
from .items import Item as Item
from .romanised import romanise as romanise
from .streams import CorpusShard as CorpusShard
from .streams import CorpusStream as CorpusStream
from .streams import stream_corpus as stream_corpus
