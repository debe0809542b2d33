"""Turns a sweep, finished or running, into a dataset: one module for each layout, and one loop (`base`) for all."""
