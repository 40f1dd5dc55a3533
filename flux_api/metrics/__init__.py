"""What is counted and measured while the server runs."""
