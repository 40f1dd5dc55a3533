"""Several machines: pictures made by replicas of a Ray Serve application."""
