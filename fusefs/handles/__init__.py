"""What is open: views, control files, documents."""
