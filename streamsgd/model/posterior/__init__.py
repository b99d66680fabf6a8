"""How well weights are known: draws, whether chains agree, standard errors, intervals of the mean."""
