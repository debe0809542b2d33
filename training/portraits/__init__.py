"""Portraits: drawings, captions, detectors, and the training of the small model that comes with Printroom."""
