"""A model of another library: a causal LM of `transformers`, built from a configuration.

New in this example: a function of the size builds the model, batches are mappings that are passed
to the model as keyword arguments, and the model computes the loss. Needs
`pip install 'flops-fit[hub]'`.
"""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

import flops_fit
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [1e10, 2e10, 4e10, 8e10]  # FLOPs
CONTEXT = 128


def gpt2(width: int, layers: int = 2) -> GPT2LMHeadModel:
    """A byte-level GPT-2 whose width is a multiple of its number of heads."""
    config = GPT2Config(
        vocab_size=256,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 16),
        resid_pdrop=0.0,  # no dropout, because no data are repeated
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.5 * width**-0.5,  # the default 0.02 starts narrow models near zero
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # its default, which without this line comes with a warning
    model.num_params = model.num_parameters  # flops-fit calls this method for N
    return model


class Mappings(Dataset[dict[str, torch.Tensor]]):
    """Windows of text as `transformers` expects them; the model shifts the labels."""

    def __init__(self, split: str) -> None:
        self.windows = stdlib_text(split, CONTEXT)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self.windows[index][0]
        return {"input_ids": tokens, "labels": tokens}


def own_loss(outputs: object, batch: object) -> torch.Tensor:
    """The loss that the model computes from the labels."""
    return outputs.loss  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print the result."""
    parser = sweep_options(
        "GPT-2 of transformers on Python's own source", BUDGETS, eval_examples=512
    )
    args = parser.parse_args(argv)
    result = flops_fit.find_optimal(
        model_cls=gpt2,
        model_size_param="width",
        dataset=Mappings("train"),
        eval_dataset=Mappings("eval"),
        loss_fn=own_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name="hf-gpt2",
        workers=args.workers,
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
