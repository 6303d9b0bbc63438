"""Perdure: the place where a research facility's data lives on."""
