"""Forms of a metric's law: a sigmoid or a power, of the loss or of compute.

With B the basis of a form, a metric is

    m = b0 + b1 B + (b2 v + b3 v^2) B'

* "sigmoid of the loss": B = 1 / (1 + exp((L - middle) / width)), between a floor and a ceiling.
* "power of the loss": B = ((L - E) / (L_0 - E))^p. For an accuracy b0 = 1, so that ln(1 - m) is
  linear in ln(L - E).
* "sigmoid of compute" and "power of compute": the same in ln C, B = (C / C_0)^-p, with v the
  distance of ln N from its optimum, and B' = B (1 - B) of a sigmoid or B of a power.

Every form is linear in b0 to b3 for given shape parameters (two of them), so that its fit is a
grid over those (`posterior`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flops_fit.laws.model.arrays import Array

# Ranges of the shape parameters, in units of the range of the runs.
MIDDLES = (-2.0, 3.0)
LOG_WIDTHS = (np.log(0.03), np.log(3.0))
LOG_POWERS = (np.log(0.15), np.log(8.0))
# Of compute: per unit of ln C.
LOG_COMPUTE_POWERS = (np.log(0.01), np.log(2.0))
# E may be as much as this share of the way from 0 to the least loss.
LARGEST_E = 0.98


@dataclass(frozen=True)
class Places:
    """Where a metric is measured or forecast, columns of one shape.

    Attributes:
        loss: The loss L.
        log_compute: ln C.
        off_optimum: ln N less ln N_opt(C).
    """

    loss: Array
    log_compute: Array
    off_optimum: Array

    def at(self, rows: np.ndarray) -> Places:
        """Some of the places, by a mask or by indices."""
        return Places(self.loss[rows], self.log_compute[rows], self.off_optimum[rows])


@dataclass(frozen=True)
class Form:
    """One form of a metric's law.

    Attributes:
        shape: "sigmoid" or "power".
        of: "loss" or "compute".
        loss_range: The least and the largest loss of the runs.
        compute_range: The least and the largest ln C of the runs.
        irreducible: Range of E, of a power of the loss.
    """

    shape: str
    of: str
    loss_range: tuple[float, float]
    compute_range: tuple[float, float]
    irreducible: tuple[float, float] = (0.0, 0.0)

    @property
    def name(self) -> str:
        """For display: "sigmoid of the loss"."""
        return f"{self.shape} of {'the loss' if self.of == 'loss' else 'compute'}"

    @property
    def grid(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Ranges of the two shape parameters."""
        if self.shape == "sigmoid":
            low, high = self._range
            middles = tuple(low + share * (high - low) for share in MIDDLES)
            return (middles[0], middles[1]), LOG_WIDTHS
        if self.of == "loss":
            return self.irreducible, LOG_POWERS
        return (0.0, 0.0), LOG_COMPUTE_POWERS

    @property
    def _range(self) -> tuple[float, float]:
        return self.loss_range if self.of == "loss" else self.compute_range

    @property
    def num_linear(self) -> int:
        """Number of linear coefficients."""
        return 2 if self.of == "loss" else 4

    def basis(self, shape: Array, places: Places) -> Array:
        """B for S pairs of shape parameters, shape (S, k); places of shape (k,) or (S, k)."""
        first, second = shape[:, :1], shape[:, 1:2]
        if self.shape == "sigmoid":
            low, high = self._range
            z = -places.loss if self.of == "loss" else places.log_compute
            first = -first if self.of == "loss" else first
            scaled = (z - first) / (np.exp(second) * max(high - low, 1e-12))
            return np.asarray(1 / (1 + np.exp(-np.clip(scaled, -500, 500))))
        if self.of == "loss":
            reference = self.loss_range[1]
            ratio = np.maximum(places.loss - first, 1e-12) / np.maximum(reference - first, 1e-12)
            return np.asarray(np.exp(np.exp(second) * np.log(ratio)))
        beyond = places.log_compute - self.compute_range[0]
        return np.asarray(np.exp(-np.exp(second) * beyond))

    def design(self, shape: Array, places: Places) -> Array:
        """The columns that are linear in b0 to b3, shape (S, k, num_linear)."""
        B = self.basis(shape, places)
        columns = [np.ones_like(B), B]
        if self.of == "compute":
            slope = B * (1 - B) if self.shape == "sigmoid" else B
            v = places.off_optimum
            columns += [slope * v, slope * v**2]
        return np.stack(columns, axis=-1)

    def values(self, draws: Array, places: Places) -> Array:
        """The metric by S draws at k places, shape (S, k).

        Args:
            draws: Shape parameters, then b0 and so on, shape (S, 2 + num_linear).
            places: Columns of shape (k,) or (S, k).
        """
        return np.asarray(np.einsum("skq,sq->sk", self.design(draws[:, :2], places), draws[:, 2:]))
