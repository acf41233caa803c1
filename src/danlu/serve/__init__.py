"""Serving: models behind HTTP, one process each, on this machine unless keys say who may come from elsewhere."""
