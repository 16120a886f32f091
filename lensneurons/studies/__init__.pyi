from .finished import Study as Study
from .model_claims import model_claims as model_claims
from .plan import Plan as Plan
from .plan import Sizes as Sizes
from .study import study as study
