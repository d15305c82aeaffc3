"""Open files: views, control files, documents."""
