"""Artifacts turned into one self-contained page and a model card."""
