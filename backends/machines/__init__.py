"""The machines that code is made for: targets, their linkers and object files, threads, emulation."""
