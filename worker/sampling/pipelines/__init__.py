"""Families that a diffusers pipeline renders, by whole calls instead of rows."""
