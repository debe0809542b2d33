"""Files of prompts: CSV, TSV, JSON, Parquet and plain text, from bytes to columns of values."""
