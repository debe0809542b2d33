"""What a sweep has made: reads, searches and verifies its manifests and images."""
