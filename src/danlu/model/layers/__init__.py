"""Blocks that several families are built from."""
