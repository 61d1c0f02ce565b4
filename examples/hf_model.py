"""A model of another library: a causal LM of `transformers`, from its configuration.

What is new: the model is made by a function of the size, batches are mappings, which the model gets
as keywords, and the loss is the model's own. Needs `pip install 'flops-fit[hub]'`.
"""

import argparse
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

import flops_fit
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [1e10, 2e10, 4e10, 8e10]  # FLOPs
CONTEXT = 128


def llama(width: int, layers: int = 2) -> LlamaForCausalLM:
    """A Llama on bytes, of a width that its heads divide."""
    heads = max(1, width // 16)
    if width % (2 * heads):
        raise ValueError(f"width {width} does not divide into {heads} heads of even width")
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5 * width**-0.5,  # the fixed .02 starts narrow models near zero
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.num_params = model.num_parameters  # flops-fit asks for N by this name
    return model


class Mappings(Dataset[dict[str, torch.Tensor]]):
    """Windows of text as `transformers` wants them; it shifts the labels itself."""

    def __init__(self, split: str) -> None:
        self.windows = stdlib_text(split, CONTEXT)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self.windows[index][0]
        return {"input_ids": tokens, "labels": tokens}


def own_loss(outputs: object, batch: object) -> torch.Tensor:
    """The loss that the model computes where it is given labels."""
    return outputs.loss  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print what it found."""
    parser = argparse.ArgumentParser(description="A Llama of transformers on Python's own source")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="FLOPs")
    parser.add_argument("--sizes", type=int, nargs="+", help="widths; by default planned")
    parser.add_argument("--workers", type=int, help="by default one per GPU, else one per core")
    args = parser.parse_args(argv)
    result = flops_fit.find_optimal(
        model_cls=llama,
        model_size_param="width",
        dataset=Mappings("train"),
        eval_dataset=Mappings("eval"),
        loss_fn=own_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(eval_examples=512),
        name="hf-llama",
        workers=args.workers or "auto",
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
