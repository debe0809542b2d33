"""Makes tiny random models for tests, benchmarks and documentation. Not part of the installed package."""
