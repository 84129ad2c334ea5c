"""Speed beside the peers that are installed: layers and whole networks, timed in turn inside one process."""
