"""Portraits: drawings, captions, detectors, and the training of a small model. No weights pass its table yet."""
