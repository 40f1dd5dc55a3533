"""Measurements as commands; each prints ratios taken in one run."""
