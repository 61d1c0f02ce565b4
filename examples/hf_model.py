"""A model of another library: a causal LM of `transformers`, from its configuration.

What is new: the model is made by a function of the size, batches are mappings, which the model gets
as keywords, and the loss is the model's own. Needs `pip install 'flops-fit[hub]'`.
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
    """A GPT-2 on bytes, of a width that its heads divide."""
    config = GPT2Config(
        vocab_size=256,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 16),
        resid_pdrop=0.0,  # what is read once needs no dropout
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.5 * width**-0.5,  # the fixed .02 starts narrow models near zero
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # which it would take anyway, with a warning
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
        recipe=flops_fit.Recipe(batch_size=args.batch, eval_examples=args.eval_examples),
        name="hf-gpt2",
        workers=args.workers,
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
