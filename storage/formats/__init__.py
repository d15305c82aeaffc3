"""What documents are: JSON text, kinds of step, slugs, and what may be appended."""
