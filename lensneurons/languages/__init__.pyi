from .detection import detect_language as detect_language
