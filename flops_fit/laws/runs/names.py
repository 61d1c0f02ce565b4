"""The names that people give to the columns of a table of runs.

Names are matched without regard to case, blanks and punctuation, without the prefixes of W&B,
MLflow, Ray and Optuna (`summary.`, `metrics.`, `config/`, `params_`), and with a unit after them,
as in `D (B)` or `tokens_millions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from flops_fit.laws.runs.numbers import scale_of

# Hours on a clock, and those of all devices together.
WALL_HOURS = "hours wallhours trainhours traininghours walltimeh walltimehours runtimehours"
DEVICE_HOURS = "gpuhours devicehours acceleratorhours"
# Accepted names of each column, lower case without punctuation, in groups: a name of an earlier
# group is the better candidate by convention, those of one group stand for the same thing.
ALIASES: dict[str, list[list[str]]] = {
    name: [group.split() for group in groups]
    for name, groups in {
        "num_params": [
            "numparams params n parameters nparams modelsize paramcount numparameters nparameters "
            "modelparams totalparams parametercount modelparameters paramstotal numparamstotal "
            "totalparameters numtotalparams trainableparams numtrainableparams "
            "trainableparameters",
            "activeparams numactiveparams nactive activeparameters nactiveparams paramsactive",
            "nonembeddingparams nonembedparams nonembeddingparameters numnonembeddingparams "
            "nparamsnonembedding nparamsnonembed paramsnonembedding paramsnonembed "
            "numparamsnonembedding nne nnonembedding nnonembed numscalingparams scalingparams "
            "paramsnoembedding",
            "size model modelname",
        ],
        "num_tokens": [
            "numtokens tokens d ntokens traintokens trainingtokens data tokensseen totaltokens "
            "datasetsize numexamples examples tokenstrained trainedtokens totaltrainingtokens "
            "totaltraintokens numtraintokens numtrainingtokens ntraintokens tokencount "
            "consumedtokens tokensconsumed numtokensseen trainexamples trainingexamples "
            "examplesseen numsamples samplesseen consumedsamples imagesseen numimages",
        ],
        "loss": [
            "valloss evalloss testloss heldoutloss validationloss finalvalloss finalevalloss "
            "finalvalidationloss finaltestloss devloss valnll evalnll testnll valce evalce "
            "valcrossentropy evalcrossentropy testcrossentropy valbpb evalbpb finalvalbpb",
            "loss l finalloss nll crossentropy celoss crossentropyloss lmloss bpb losses meanloss "
            "lossmean",
            "trainloss trainingloss finaltrainloss finaltrainingloss",
            "perplexity ppl valppl evalppl testppl valperplexity evalperplexity "
            "validationperplexity testperplexity",
        ],
        "flops": [
            "flops flop trainingflop trainingflops trainflops c compute totalflops "
            "trainingcompute traincompute totalcompute computeflops computeflop trainflop "
            "totaltrainingflops flopstotal numflops flopsspent measuredflops modelflops "
            "totalflos totalgflops trainingcomputeflop trainingcomputeflops pfdays petaflopdays "
            "petaflopsdays exaflops zettaflops",
        ],
        "compute_budget": [
            "computebudget budget isoflop flopsbudget flopbudget budgetflops computebudgetflops "
            "isoflopbudget isoflopsbudget isoflops isoflopc targetflops targetcompute "
            "nominalflops nominalcompute budgetc",
        ],
        "unique_tokens": ["uniquetokens uniqued u numuniquetokens nuniquetokens"],
        "state": ["state status runstatus trialstatus runstate jobstatus"],
        "seed": ["seed randomseed rngseed"],
        "learning_rate": ["learningrate lr peaklr maxlr peaklearningrate maxlearningrate"],
        "wall_time_s": [
            "walltimes walltime walltimesec walltimeseconds wallclock wallclocktime wallclocks "
            "wallclockseconds trainseconds trainingseconds traintime traintimes trainingtime "
            "trainingtimes trainruntime seconds runtime runtimes runtimesec runtimeseconds elapsed "
            "elapseds elapsedseconds elapsedtime duration durations durationseconds "
            f"{WALL_HOURS}",
            DEVICE_HOURS,
        ],
        **{
            name: [name.replace("_", "")]
            for name in (
                "epochs steps best_loss warmup_fraction embedding_params lr_multiplier "
                "excluded trial_id"
            ).split()
        },
    }.items()
}
HOURS = frozenset([*WALL_HOURS.split(), *DEVICE_HOURS.split()])
HELD_OUT, GENERIC, TRAINING, PERPLEXITY = range(4)  # groups of `loss`
NAMED = 3  # the group of `num_params` that counts only where it holds text such as 70M
QUANTITIES = ("num_params", "num_tokens", "loss", "flops", "compute_budget", "unique_tokens")
# Those that may have a unit in the name of their column, and more than one column to choose from.
MEASURED = (*QUANTITIES, "wall_time_s")
# Names that also stand for other things: a column of text so named is not the quantity.
WEAK = frozenset("data examples budget compute datasetsize d c l n u".split())
_PREFIX = re.compile(
    r"(?:summary|summary_metrics|metrics?|params?|configs?|tags|attributes|data|runs?|hparams|args|"
    r"user_attrs|results?|model|model_config|cfg)[./]|(?:params|user_attrs)_",
    re.IGNORECASE,
)
# A last part of a path that is this long says what it is, whatever stands before it.
LEAST_LETTERS = 8
_IN_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]\s*$")
_LAST_WORD = re.compile(
    r"(.*?)(?:[\s_,-]+in)?[\s_,-]+((?:pf|petaflop|pflop)s?[-_ /]?s?[-_ ]?days?|[a-z0-9^]+)$", re.I
)
# What a unit in a column's name measures.
_MEASURES = {
    "num_params": ("param", "parameter"),
    "num_tokens": ("token", "tok", "example", "sample", "sequence", "image"),
    "loss": ("nat",),
    "flops": ("flop", "ef", "zf", "day"),
    "compute_budget": ("flop", "ef", "zf", "day"),
}
# Words of a held-out loss with a name of its own, as in val/c4_loss, and those that name another
# statistic of it.
_EVALUATED = frozenset("val valid validation eval evaluation test heldout holdout held dev".split())
_OTHER = frozenset(
    "std stderr sem se err error var ci low high min max best ema smooth smoothed step steps delta "
    "ratio weight scale fn function type name aux z diff gap count".split()
)


@dataclass(frozen=True)
class Candidate:
    """A column that may be a quantity: its name, its rank by convention, and its unit."""

    column: str
    group: int
    place: int
    scale: float = 1.0
    weak: bool = False

    @property
    def rank(self) -> tuple[int, int, bool]:
        """The order of candidates; a capital, as in N, comes before n."""
        return self.group, self.place, not self.column[:1].isupper()


def candidates(frame: pd.DataFrame, name: str) -> list[Candidate]:
    """The columns that may be a quantity by their names, the best first."""
    found = []
    for column in frame.columns:
        for text, scale, unit in _readings(str(column)):
            place = place_of(plain(text), ALIASES[name])
            if place is not None and _measures(unit, scale, name):
                exact = column == name and name != "loss"
                weak = plain(text) in WEAK and column != name
                found.append(Candidate(column, *((-1, 0) if exact else place), scale, weak))
                break
        else:
            group = _group_of_loss(str(column)) if name == "loss" else None
            if group is not None:
                found.append(Candidate(column, group, len(ALIASES["loss"][group])))
    return sorted(found, key=lambda candidate: candidate.rank)


def _readings(column: str) -> list[tuple[str, float, str]]:
    """What a column's name may say: a name, and the scale and the unit after it."""
    stripped = column
    while _PREFIX.match(stripped):
        stripped = _PREFIX.sub("", stripped, count=1)
    readings = []
    last_part = re.split(r"[./]", stripped)[-1]
    if len(plain(last_part)) >= LEAST_LETTERS and not _group_of_loss(f"eval {last_part}"):
        stripped = last_part  # throughput/total_tokens
    for text in dict.fromkeys((column, stripped)):
        readings.append((text, _bare_scale(text), ""))
        bracket, last = _IN_BRACKETS.search(text), _LAST_WORD.fullmatch(text)
        if bracket:
            head, unit = text[: bracket.start()], bracket[1].lower().removeprefix("in ")
            readings.append((head, scale_of(unit) or _bare_scale(head), unit))
        if last and scale_of(last[2]) is not None:
            readings.append((last[1], scale_of(last[2]) or 1.0, last[2].lower()))
    return readings


def _measures(unit: str, scale: float, name: str) -> bool:
    """Whether a unit in a column's name can be that of a quantity."""
    if scale != 1 and (name not in MEASURED or name == "loss"):
        return False
    measured = [q for q, stems in _MEASURES.items() if any(stem in unit for stem in stems)]
    return not measured or name in measured or name not in _MEASURES


def _bare_scale(column: str) -> float:
    """The scale of names that are units themselves, such as PF-days."""
    name = plain(column)
    if name in HOURS:
        return 3600.0
    days = name in ("pfdays", "petaflopdays", "petaflopsdays")
    scales = {"exaflops": 1e18, "zettaflops": 1e21, "totalgflops": 1e9}
    return 8.64e19 if days else scales.get(name, 1.0)


def place_of(name: str, groups: list[list[str]]) -> tuple[int, int] | None:
    """The group of a plain name and its place in it; None if it is in none."""
    for i, group in enumerate(groups):
        if name in group:
            return i, group.index(name)
    return None


def _group_of_loss(column: str) -> int | None:
    """The group of a loss with a name of its own, such as val/c4_loss; None if it is none."""
    found = words(column)
    if not {"loss", "nll", "bpb", "ce", "xent"} & set(found):
        return None
    if _EVALUATED & set(found):
        return HELD_OUT if not (_OTHER - {"best"}) & set(found) else None
    if _OTHER & set(found):
        return None
    return TRAINING if {"train", "training"} & set(found) else None


def plain(column: object) -> str:
    """A column's name in lower case, without blanks and punctuation."""
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def words(column: object) -> list[str]:
    """The words of a column's name: `val/c4_loss` and `evalLoss` alike."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", str(column))
    return [word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word]
