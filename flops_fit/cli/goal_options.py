"""The options of a sweep with a goal: what the answer is for, and how precise it is to be."""

from __future__ import annotations

import click

GOAL_OPTIONS = [
    click.option(
        "--target",
        type=float,
        metavar="FLOPS",
        help="Compute budget that the answer is for. Trials are then chosen round by round, at "
        "budgets between the smallest and the largest of --compute-budgets, until the answer there "
        "is precise enough.",
    ),
    click.option(
        "--until",
        type=float,
        metavar="FACTOR",
        help="Factor that the 95 % interval of the best size at --target may span. Default: 1.25.",
    ),
    click.option(
        "--until-loss",
        type=float,
        metavar="FACTOR",
        help="The same for the loss there, such as 1.02. Given without --until, it counts alone.",
    ),
    click.option(
        "--max-flops",
        type=float,
        metavar="FLOPS",
        help="What a sweep with --target may spend. Default: what a grid of five budgets and seven "
        "sizes over the same range would.",
    ),
    click.option(
        "--gain-per",
        type=click.Choice(["flop", "hour"]),
        help="With --target, choose the trials that gain most per FLOP (the default) or per hour "
        "that they are expected to take, by the times of the trials so far.",
    ),
]
