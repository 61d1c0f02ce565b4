"""Whether the losses of two sweeps can be compared at all.

What sweeps write down of themselves is looked at: the loss, the held-out data, what D counts and
how FLOPs are counted. Tables of runs say nothing of it, which is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from flops_fit.laws.check import Check

Meta = Mapping[str, str]
# Field of the metadata, what it is, and why sweeps that differ in it cannot be compared.
MUST_AGREE = (
    ("loss_fn", "the loss", "their values are of different quantities"),
    ("data_unit", "what D counts", "a loss per token is none per example"),
    ("flops_convention", "how FLOPs are counted", "equal FLOPs are not equal compute"),
)


def incomparable(names: tuple[str, str], metas: tuple[Meta, Meta], *, per_byte: bool) -> list[str]:
    """Why two sweeps cannot be compared; empty if nothing speaks against it.

    Args:
        names: Of the sweeps.
        metas: What they wrote down of themselves.
        per_byte: Whether losses are compared per byte of text, which other tokens then may make up.
    """
    faults = []
    for key, what, why in MUST_AGREE:
        here, there = (meta.get(key) for meta in metas)
        if here and there and here != there:
            faults.append(f"{what} differs: {here} in {names[0]!r}, {there} in {names[1]!r}; {why}")
    held_out = [_held_out(meta) for meta in metas]
    if all(held_out) and held_out[0] != held_out[1] and not per_byte:
        faults.append(
            f"the held-out data of {names[0]!r} and {names[1]!r} differ, and so would the loss of "
            "one and the same model; pass the same eval_dataset to both sweeps. If it is one text "
            "in other tokens, pass bytes_per_token={name: bytes, ...}"
        )
    return faults


def doubts(names: tuple[str, str], metas: tuple[Meta, Meta], *, per_byte: bool) -> list[Check]:
    """What is to be minded about a comparison."""
    found = []
    unknown = [
        repr(name) for name, meta in zip(names, metas, strict=True) if not meta.get("loss_fn")
    ]
    if unknown:
        found.append(
            Check(
                "unknown-loss",
                "note",
                f"{' and '.join(unknown)} do not say on which held-out data, and with which loss, "
                "they were measured.",
                "Compare only what was measured alike.",
            )
        )
    if per_byte:
        found.append(
            Check(
                "per-byte",
                "note",
                "losses are compared per byte of text; that the held-out text is the same is taken "
                "on trust.",
                "",
            )
        )
    counts = [meta.get("eval_examples") for meta in metas]
    if all(counts) and counts[0] != counts[1]:
        found.append(
            Check(
                "held-out-parts",
                "warn",
                f"the losses are means over {counts[0]} and {counts[1]} held-out examples.",
                "Use Recipe(eval_examples=...) of one number for both.",
            )
        )
    return found


def _held_out(meta: Meta) -> tuple[str, ...]:
    """What tells held-out data apart; empty if it is not known."""
    fingerprint = meta.get("data_fingerprint", "")
    if "+" in fingerprint:  # those of training and held-out data, given apart
        return (fingerprint.split("+")[1],)
    return (fingerprint, meta.get("held_out", "")) if fingerprint else ()
