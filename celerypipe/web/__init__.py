"""What others read over HTTP: metrics for Prometheus, and numbers to scale by."""
