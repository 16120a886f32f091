from .profiles import PublishedProfile as PublishedProfile
from .profiles import published_profile as published_profile
from .sample import Sample as Sample
from .sample import load_sample as load_sample
from .sample import sample_names as sample_names
