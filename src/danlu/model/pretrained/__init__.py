"""Checkpoints in Hugging Face layout, read into our own modules and written from them."""
