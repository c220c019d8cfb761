"""An inbox whose counts are worked out in the background. README.md says what it shows."""
