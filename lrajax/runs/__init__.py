"""The application layer: settings -> compiled runs -> files, and the commands around them."""
