"""What both wings say to each other through Redis; the only place where they meet."""
