"""Random graphs for the compaction passes: programs as data, how they are made, checked, shrunk and printed."""
