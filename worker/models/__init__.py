"""Finds, names and loads diffusion models."""
