"""Metrics with intervals, paired significance, calibration, and the baselines to beat."""
