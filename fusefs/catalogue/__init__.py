"""Which sessions there are, and a line for each: kept up to date by what changes, at any number."""
