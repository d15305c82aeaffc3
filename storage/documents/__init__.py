"""Long documents, judged and rendered in processes of their own."""
