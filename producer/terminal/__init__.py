"""What a person reads in a terminal: help pages, tables, and what came of each verb."""
