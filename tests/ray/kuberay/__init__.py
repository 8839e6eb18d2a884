"""KubeRay for tests: an API server with an operator, and Ray's own autoscaler on it."""
