"""Deciding by trials how much every layer loses: a distribution over layers, samples around it, and steps towards the best.

That is how RL-Pruner allots (2024, arXiv 2411.06463). Nothing here trains, and nothing here knows networks but
`channel_parts` and `structure_parts`: what an allocation is worth, whoever asks for it says.
"""
