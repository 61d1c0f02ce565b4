"""The recipe that the pilot found: which learning rate and batch size suit which model.

New in this example: `result.recipe_law`. Name and setting are those of `feedforward_stdlib.py`, so
if that sweep has run, nothing is trained. By default every sweep begins with a pilot; this script
shows what it tried, the laws that it found, and what they say of models that nobody has trained.
"""

from collections.abc import Sequence

import feedforward_stdlib

import flops_fit


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep, and print and plot its recipe."""
    result = feedforward_stdlib.main(argv)
    runs = result.runs
    tried = runs[runs["role"] != "sweep"].sort_values("loss")
    best = tried.groupby(["role", "compute_budget", "size"], as_index=False).first()
    columns = ["role", "compute_budget", "size", "learning_rate", "batch_size", "loss"]
    print(f"\n{len(tried)} trials tried recipes; the best of each size:")
    print(best[columns].to_string(index=False, float_format="{:.4g}".format))
    if result.recipe_law is None:
        print("\nLearning rate and batch size were given, so there was no pilot.")
        return result
    print(f"\nLaws of the recipe:\n{result.recipe_law.intervals.to_string()}")
    for budget in (runs["compute_budget"].max(), 10 * runs["compute_budget"].max()):
        print(f"\n{result.predict(budget)}")
    result.plot("recipe").savefig("recipe.png", dpi=150)
    print("\nBowls and laws: recipe.png")
    return result


if __name__ == "__main__":
    main()
