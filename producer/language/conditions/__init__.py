"""The language of conditions: `seed >= 3 and prompt =~ 'cat$'`, in sweep files and in `--where`."""
