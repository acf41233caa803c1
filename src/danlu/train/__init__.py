"""The training loop, its optimizer and schedule, and checkpoints that survive anything."""
