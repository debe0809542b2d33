"""The sweep language: from a sweep file, and the files that it names, to a checked `Sweep`."""
