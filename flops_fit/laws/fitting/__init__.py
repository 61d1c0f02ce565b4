"""How laws are fitted: the parametric law, power laws, IsoFLOP curves and the envelope."""
