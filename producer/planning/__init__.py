"""From a checked `Sweep` to a compiled `Plan`."""
