"""Searching for values of a recipe with which its model does better on the validation split."""
