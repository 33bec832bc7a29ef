"""The search for learning rate and trade-offs: another program over the api."""
