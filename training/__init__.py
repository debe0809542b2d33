"""Scripts that make the models of the repository. Not part of the installed package."""
