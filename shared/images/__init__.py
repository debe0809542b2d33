"""Image files: pixels and their two texts to PNG, WebP, JPEG or JPEG XL, and back. Knows nothing of jobs."""
