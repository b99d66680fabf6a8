"""What is said of a posterior."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("streamsgd")

AGREE = 1.02
"""R-hat up to which chains agree."""

FEW = 50
"""Draws of a chain, below which R-hat says nothing."""

ENOUGH = 1000
"""Effective draws for ends of 90 % intervals that are known within about a twentieth of a standard deviation."""


def warn(said: dict[str, Any]) -> None:
    """Say where the draws are not to be relied on."""
    walked = "steps" in said
    if walked and (said["r_hat"] is None or said["draws"] < FEW * said["chains"]):
        log.warning(
            "posterior: %s draws of %s weights are too few to tell whether the chains agree; more --draws take more memory",
            f"{said['draws']:,}",
            f"{said['weights']:,}",
        )
    elif walked and said["r_hat"] > AGREE:
        log.warning(
            "posterior: the chains do not agree (R-hat up to %.3g): each has seen a part of the posterior only, so do not "
            "trust the draws; pass more steps, e.g. --method %s:steps=%d, a stronger --prior, or --method laplace",
            said["r_hat"],
            said["method"].partition(":")[0],
            4 * said["steps"],
        )
    elif walked and said["ess"] < ENOUGH:
        log.warning(
            "posterior: %s draws are worth %s independent ones of the slowest weight: ends of intervals are uncertain by about "
            "%.2g standard deviations; more steps or --draws help",
            f"{said['draws']:,}",
            f"{said['ess']:,.0f}",
            2.1 / max(said["ess"], 1.0) ** 0.5,
        )
    if not said["pairs"]:
        log.warning(
            "posterior: %s weights have %s pairs, which are not added up: there are variances and draws, but no covariance",
            f"{said['weights']:,}",
            f"{said['weights'] * (said['weights'] - 1) // 2:,}",
        )
    predicted = said.get("predicted_sd_over_curvature")
    if predicted and predicted[1] > WIDER and said["method"].partition(":")[0] == "sgld":
        log.warning(
            "posterior: the noise of plain gradients widens standard deviations to %.3g to %.3g times those of the posterior, "
            "by the formula; --method sgld-cv does not",
            *predicted,
        )


WIDER = 1.05
"""Times the posterior's standard deviations, beyond which a warning says so."""


def describe(said: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    lines = [f"posterior: {said['weights']:,} weights given {said['rows']:,} rows, prior {said['prior']}, by {said['method']}"]
    if said["temperature"] != 1.0:
        lines[0] += f" at the temperature {said['temperature']:g}"
    if "steps" in said:
        lines.append(
            f"  {said['chains']} chains of {said['steps']:,} steps of {said['batch']:,} rows (step {said['step']:.3g}, burn-in "
            f"{said['burn_in']:,}): {said['recorded']:,} draws recorded, {said['draws']:,} kept; row gradients of "
            f"{said['row_gradients'] / said['rows']:.2g} passes"
        )
    else:
        lines.append(f"  {said['draws']:,} independent draws of the normal distribution at the mode")
    if said["r_hat"] is not None:
        lines.append(f"  R-hat at most {said['r_hat']:.4f}, effective draws at least {said['ess']:,.0f}")
    low, high = said["sd_over_curvature"]
    lines.append(f"  standard deviations are {low:.3f} to {high:.3f} of those of the curvature at the mode")
    if (predicted := said.get("predicted_sd_over_curvature")) is not None:
        lines[-1] += f"; step and batches make {predicted[0]:.3f} to {predicted[1]:.3f} of a normal posterior, by the formula"
    return lines
