"""Steps as text: JSON lines and Markdown."""
