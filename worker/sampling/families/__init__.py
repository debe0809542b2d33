"""Families of models that the row engine renders: how each one's loaded networks are called."""
