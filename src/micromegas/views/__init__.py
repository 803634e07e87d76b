"""View sets: the schema of every table family and how its rows are made from blocks.

Nothing here talks to the network or knows SQL; blocks and objects come from the lake that is handed in.
"""
