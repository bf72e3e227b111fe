"""The bundle, and the predictor that answers from it without torch."""
