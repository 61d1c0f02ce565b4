"""Which column is what: the names that people give to N, D, C and the loss, and the choice among them.

Names are matched without regard to case, blanks and punctuation, without the prefixes of W&B,
MLflow, Ray and Optuna (`summary.`, `metrics.`, `config/`, `params_`), and with a unit after them,
as in `D (B)` or `tokens_millions`. Among several candidates the one named first below is taken; what
was left is stated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from flops_fit.errors import TableError
from flops_fit.laws.check import Check
from flops_fit.laws.runs.numbers import scale_of, to_numbers
from flops_fit.laws.runs.states import has_known_states
from flops_fit.records import RUN_COLUMNS

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
            "totalflos trainingcomputeflop trainingcomputeflops pfdays petaflopdays "
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
        **{
            name: [name.replace("_", "")]
            for name in (
                "epochs steps best_loss warmup_fraction embedding_params lr_multiplier "
                "wall_time_s excluded trial_id"
            ).split()
        },
    }.items()
}
HELD_OUT, GENERIC, TRAINING, PERPLEXITY = range(4)  # groups of `loss`
NAMED = 3  # the group of `num_params` that counts only where it holds text such as 70M
QUANTITIES = ("num_params", "num_tokens", "loss", "flops", "compute_budget", "unique_tokens")
# Names that also stand for other things: a column of text so named is not the quantity.
WEAK = frozenset("data examples budget compute datasetsize d c l n u".split())
_PREFIX = re.compile(
    r"(?:summary|summary_metrics|metrics?|params?|configs?|tags|attributes|data|runs?|hparams|args|"
    r"user_attrs|results?|model|model_config|cfg)[./]|(?:params|user_attrs)_",
    re.IGNORECASE,
)
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
_EVALUATED = frozenset("val valid validation eval evaluation test heldout dev".split())
_OTHER = frozenset(
    "std stderr sem se err error var ci low high min max best ema smooth smoothed step steps delta "
    "ratio weight scale fn function type name aux z diff gap count".split()
)
_RATES = frozenset("per second sec s token mfu util utilization rate price hour hours".split())
# Two candidates of one group differ if half of their rows do by more than this.
SAME_WITHIN = 0.02


@dataclass(frozen=True)
class Recognised:
    """A table whose columns have the names of quantities.

    Attributes:
        frame: The table.
        scales: What to multiply a column by, for the unit in its name.
        perplexity: Whether the loss is a perplexity.
        checks: What was decided.
    """

    frame: pd.DataFrame
    scales: Mapping[str, float] = field(default_factory=dict)
    perplexity: bool = False
    checks: Sequence[Check] = ()


@dataclass(frozen=True)
class _Candidate:
    """A column that may be a quantity: its name, its rank by convention, and its unit."""

    column: str
    group: int
    place: int
    scale: float = 1.0
    weak: bool = False

    @property
    def rank(self) -> tuple[int, int, bool]:
        return self.group, self.place, not self.column[:1].isupper()


def recognise(frame: pd.DataFrame) -> Recognised:
    """Rename the columns that are quantities of a run.

    Args:
        frame: The table as given.

    Raises:
        TableError: Two columns have one name and different values.
    """
    frame = _without_repeated(frame)
    if set(RUN_COLUMNS) <= set(frame.columns):  # a table that this package wrote
        return Recognised(frame)
    taken: dict[str, _Candidate] = {}
    checks: list[Check] = []
    for name in ALIASES:
        found = _candidates(frame, name)
        usable = _usable(frame, name, found)
        if usable:
            taken[name] = usable[0]
            checks += _note_left(frame, name, *usable) if name in QUANTITIES else []
        else:
            checks += _note_text(frame, name, found)
    names = {candidate.column: name for name, candidate in reversed(taken.items())}
    # A column that was left keeps its values, but not a name that another one has now.
    aside = {name: f"{name}_given" for name in ALIASES if name in frame and name not in names}
    scales = {
        name: c.scale for name, c in taken.items() if _needs_scale(frame[c.column], name, c.scale)
    }
    checks += _note_units(taken, scales) + _note_overlooked(frame, names)
    perplexity = "loss" in taken and taken["loss"].group == PERPLEXITY
    return Recognised(frame.rename(columns=aside | names), scales, perplexity, checks)


def _usable(
    frame: pd.DataFrame, name: str, found: Sequence[_Candidate]
) -> list[_Candidate]:
    """The candidates that hold what the quantity is, the best first."""
    if name == "state":
        return [c for c in found if has_known_states(frame[c.column])]
    numeric = [c for c in found if holds_numbers(frame[c.column])]
    if name == "num_params":
        named = [c for c in numeric if c.group == NAMED]
        numeric = [c for c in numeric if c not in named]
        if not numeric and len(numeric) == len(found) - len(named):
            return [c for c in named if _holds_sizes(frame[c.column])]
    # A column of text that has the name of a quantity is a fault, if no other column is it.
    return numeric or [c for c in found if not c.weak]


def plain(column: object) -> str:
    """A column's name in lower case, without blanks and punctuation."""
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def words(column: object) -> list[str]:
    """The words of a column's name: `val/c4_loss` and `evalLoss` alike."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", str(column))
    return [word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word]


def _candidates(frame: pd.DataFrame, name: str) -> list[_Candidate]:
    """The columns that may be a quantity by their names, the best first."""
    found = []
    for column in frame.columns:
        for text, scale, unit in _readings(str(column)):
            place = _place(plain(text), ALIASES[name])
            if place is not None and _measures(unit, scale, name):
                exact = column == name and name != "loss"
                weak = plain(text) in WEAK and column != name
                found.append(_Candidate(column, *((-1, 0) if exact else place), scale, weak))
                break
        else:
            group = _group_of_loss(str(column)) if name == "loss" else None
            if group is not None:
                found.append(_Candidate(column, group, len(ALIASES["loss"][group])))
    return sorted(found, key=lambda candidate: candidate.rank)


def _readings(column: str) -> list[tuple[str, float, str]]:
    """What a column's name may say: a name, and the scale and the unit after it."""
    stripped = column
    while _PREFIX.match(stripped):
        stripped = _PREFIX.sub("", stripped, count=1)
    readings = []
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
    if scale != 1 and (name not in QUANTITIES or name == "loss"):
        return False
    measured = [q for q, stems in _MEASURES.items() if any(stem in unit for stem in stems)]
    return not measured or name in measured or name not in _MEASURES


def _bare_scale(column: str) -> float:
    """The scale of names that are units themselves, such as PF-days."""
    name = plain(column)
    days = name in ("pfdays", "petaflopdays", "petaflopsdays")
    return 8.64e19 if days else {"exaflops": 1e18, "zettaflops": 1e21}.get(name, 1.0)


def _place(name: str, groups: list[list[str]]) -> tuple[int, int] | None:
    for i, group in enumerate(groups):
        if name in group:
            return i, group.index(name)
    return None


def _group_of_loss(column: str) -> int | None:
    """The group of a loss with a name of its own, such as val/c4_loss; None if it is none."""
    found = words(column)
    if not {"loss", "nll", "bpb"} & set(found) or _OTHER & set(found):
        return None
    if _EVALUATED & set(found):
        return HELD_OUT
    return TRAINING if {"train", "training"} & set(found) else None


def holds_numbers(cells: pd.Series) -> bool:
    """Whether at least half of a column's cells are numbers, as far as its first 200 tell."""
    given = cells.dropna()
    return bool(to_numbers(given.head(200)).notna().mean() >= 0.5) if len(given) else True


def _needs_scale(cells: pd.Series, name: str, scale: float) -> bool:
    """Whether numbers are still in the unit of their column's name, and not converted already."""
    middle = float(to_numbers(cells).abs().median())
    return scale != 1 and not middle > (1e12 if name in ("flops", "compute_budget") else 1e6)


def _without_repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with each column once: also `loss.1`, as pandas reads a second `loss`."""
    first: dict[str, int] = {}
    drop, differing = [], []
    for place, name in enumerate(map(str, frame.columns)):
        base = re.sub(r"\.\d+$", "", name)
        base = base if base in first else name
        if base in first:
            same = frame.iloc[:, place].equals(frame.iloc[:, first[base]])
            known = any(_place(plain(base), groups) for groups in ALIASES.values())
            if same or name == base:
                drop.append(place)
            if not same and known:
                differing.append(base)
        first.setdefault(name, place)
    if differing:
        repeated = ", ".join(sorted(set(differing)))
        raise TableError(f"these columns occur twice: {repeated}, with different values; drop one")
    return frame.iloc[:, [i for i in range(frame.shape[1]) if i not in drop]]


def _holds_sizes(cells: pd.Series) -> bool:
    """Whether a column holds text such as 70M."""
    given = cells.dropna()
    return len(given) > 0 and all(isinstance(cell, str) and not cell.isdigit() for cell in given)


def _note_text(frame: pd.DataFrame, name: str, found: list[_Candidate]) -> list[Check]:
    if name not in QUANTITIES or not found:
        return []
    column = found[0].column
    example = frame[column].dropna().iloc[:1].tolist()
    message = f"'{column}' holds {str(example)[1:-1]:.40} and was not read as {name}."
    return [Check("columns", "note", message)]


def _note_left(
    frame: pd.DataFrame, name: str, taken: _Candidate, *left: _Candidate
) -> list[Check]:
    """State a choice; it warns where convention does not decide and the columns differ."""
    if not left:
        return []
    names = ", ".join(f"'{candidate.column}'" for candidate in left)
    message = f"{name} was read from '{taken.column}'; left out: {names}."
    # Losses of unknown kind count as candidates beside held-out ones.
    last = GENERIC if name == "loss" else taken.group
    within = 1e-3 if name == "loss" else SAME_WITHIN
    doubtful = [c for c in left if c.group <= last and _differ(frame, taken, c) > within]
    advice = f"To fit another one, rename it to {name} and drop the rest."
    return [Check("columns", "warn" if doubtful else "note", message, advice if doubtful else "")]


def _differ(frame: pd.DataFrame, one: _Candidate, other: _Candidate) -> float:
    """The relative difference of two columns in the middle row."""
    a, b = (to_numbers(frame[c.column]).to_numpy() * c.scale for c in (one, other))
    both = np.isfinite(a) & np.isfinite(b) & (a != 0)
    return float(np.median(np.abs(b[both] / a[both] - 1))) if both.any() else 0.0


def _note_units(taken: Mapping[str, _Candidate], scales: Mapping[str, float]) -> list[Check]:
    """State what the names of columns say about the units in them."""
    checks = []
    for name, scale in scales.items():
        message = f"{name}: '{taken[name].column}' was multiplied by {scale:g}, its unit."
        checks.append(Check("columns", "note", message))
    loss = taken.get("loss")
    if loss is not None and loss.group == TRAINING:
        message = f"the loss is the training loss '{loss.column}': no held-out loss was found."
        advice = "Fit held-out losses if you have them."
        checks.append(Check("training-loss", "warn", message, advice))
    if loss is not None and loss.group == PERPLEXITY:
        message = f"the loss is ln of '{loss.column}', a perplexity."
        checks.append(Check("columns", "note", message))
    return checks


def _note_overlooked(frame: pd.DataFrame, names: Mapping[str, str]) -> list[Check]:
    """Name a column that looks like compute but has no name that is known."""
    known = {"flops", "compute_budget"} & set(names.values())
    candidates = {c.column for name in QUANTITIES for c in _candidates(frame, name)}
    for column in frame.columns:
        found = set(words(column))
        looks = any("flop" in word or word in ("compute", "budget") for word in found)
        if not looks or found & _RATES or column in candidates or column in names:
            continue
        if not float(to_numbers(frame[column]).median()) > 1e9:
            continue
        message = f"'{column}' looks like compute in FLOPs but was not read."
        advice = "If it is, rename it to flops or compute_budget."
        return [Check("columns", "note" if known else "warn", message, advice)]
    return []
