"""Train a tiny, genuine Flux on openly licensed emoji art; see training/README.md."""
