"""From an image file back to the sweep that makes it again."""
