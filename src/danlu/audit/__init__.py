"""Where a model came from: the signed record of our own, and tests of whether another derives from a reference."""
