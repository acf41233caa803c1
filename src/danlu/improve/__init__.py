"""From feedback to the next champion: who answers whom, which of two models is better, and when that is known."""
