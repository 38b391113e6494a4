"""Three principles of how large a model should be: description length, VC dimension, evidence.

Each module stands alone on numpy, scipy and scikit-learn.
"""
