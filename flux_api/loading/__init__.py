"""Weights into memory."""
