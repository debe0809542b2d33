"""Schedules: diffusers schedulers, and the linear programs that they are unrolled into."""
