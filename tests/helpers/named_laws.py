"""Laws with names, and the first and last budget of a sweep of each."""

from dataclasses import replace

from flops_fit.laws.model.parametric_law import ParametricLaw

LAWS = {
    "symmetric": (ParametricLaw(1.8, 450.0, 1200.0, 0.35, 0.35), 1e18, 1e20),
    "chinchilla": (ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658), 1e18, 1e20),
    "asymmetric": (ParametricLaw(1.7, 2100.0, 21.0, 0.465, 0.155), 1e18, 1e20),
    "small": (ParametricLaw(1.0, 66.0, 100.0, 0.35, 0.30), 1e12, 1e14),
}


def bent(law, gamma=0.5):
    """The law with the same two terms, bent: where one of them is small, it agrees."""
    A, B = law.A ** (1 / gamma), law.B ** (1 / gamma)
    return replace(law, A=A, B=B, alpha=law.alpha / gamma, beta=law.beta / gamma, gamma=gamma)
