"""The commands of ``python -m flux_api``."""
