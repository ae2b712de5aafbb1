"""The places of a run where messages stop: a station for each node, and what all of them share."""
