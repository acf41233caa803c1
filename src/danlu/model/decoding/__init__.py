"""The parts of decoding: choosing tokens, searching, cutting text into pieces, going fast."""
