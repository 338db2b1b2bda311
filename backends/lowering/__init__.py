"""From groups of the graph to a flat list of kernel calls: layouts, Relax, memory."""
