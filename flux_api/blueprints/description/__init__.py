"""What the API says of itself: OpenAPI 3.1, and a page drawn from it."""
