"""Who is next: jobs and their order; no torch, no HTTP."""
