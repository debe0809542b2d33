"""The row engine: continuous batching of denoiser rows, refilled at every step."""
