"""What this project measures about itself and about its peers."""
