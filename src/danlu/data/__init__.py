"""From raw files to clean, split, tokenised batches; every dropped record keeps its reason."""
