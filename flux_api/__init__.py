"""Flux Imaging API: a self-hosted HTTP server for Flux image generation and editing."""
