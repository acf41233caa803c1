"""Model families, each whole in one file, and the layers that they share."""
