"""What a run leaves on disk: its journal, its dead letters, telemetry; and how far it is."""
