"""A finished or running sweep into a dataset: one module a layout, one loop (`base`) that all of them share."""
