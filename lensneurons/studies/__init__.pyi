from .model_claims import model_claims as model_claims
