"""What travels along a link: messages, payloads, files, what was printed. Values, which know no machine."""
