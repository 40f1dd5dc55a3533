"""The API of AUTOMATIC1111's web UI, as far as its clients use it."""
