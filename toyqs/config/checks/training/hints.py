"""Checks of hints before sequences, and of learning to do without them (stage=bake)."""

from __future__ import annotations

from toyqs.config.errors import refuse, refusing
from toyqs.config.finished_run import settings_of
from toyqs.config.run_config import RunConfig


def check_bake_as_typed(config: RunConfig) -> None:
    """Refuse a reward or a reference other than those that stage=bake sets.

    Args:
        config: as typed, not resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if config.stage != "bake":
        return
    for key, allowed in (("reward", ("likelihood", "kl_forward")), ("reference", (None, "checkpoint"))):
        if (value := getattr(config, key)) not in allowed:
            why = "stage=bake learns from a finished run by reward=kl_forward reference=checkpoint"
            refuse(key, value, why, f"no {key}, or stage=train")


def check_hints(config: RunConfig) -> None:
    """Refuse hints where there are none, or where a run could make nothing of them.

    Args:
        config: resolved.

    Raises:
        Refusal: one line with the key, the value and the remedy.
    """
    if not config.reads_hints:
        return
    bakes = config.stage == "bake"
    key, value = ("stage", "bake") if bakes else ("hint_share", config.hint_share)
    if config.hint_share > 1:
        refuse(key, value, "is a share of the sequences", "0 to 1")
    if config.use_reasoner:
        why = "hints are read by models without thoughts, from which a run that thinks may start"
        refuse(key, value, why, "use_reasoner=false, and start_from=RUN to the run that thinks")
    if config.task.hint is None:
        why = f"task={config.task.name} has no hints"
        refuse(key, value, why, "task=rev_prog, task=depo or a text")
    if not config.task.hint_length(config.seq_len):
        why = f"task.k={config.task.k} has no step before the answer, which a hint would tell"
        refuse(key, value, why, "task.k=2 or more")
    if config.cuda_graphs:
        refuse(key, value, "a graph replays sequences of one length", "cuda_graphs=false")
    if bakes:
        _check_bake(config)
    elif not round(config.hint_share * (size := config.data_loader_batch_size // config.grad_acc)):
        refuse(key, value, f"is none of the {size} sequences that are read at a time", "a larger share")


def _check_bake(config: RunConfig) -> None:
    if config.hint_share:
        why = "stage=bake reads no hint itself, the run that it learns from does"
        refuse("hint_share", config.hint_share, why, "hint_share=0")
    if config.reference_run is None:
        why = "no run is given from which it could learn"
        refuse("stage", "bake", why, "start_from=RUN, one of use_reasoner=false and hint_share=0.5")
    past = refusing(lambda: settings_of(str(config.reference_run)))
    if not past.hint_share:
        key = "start_from" if config.reference_run == config.start_from else "reference_run"
        why = "that run never read a hint, which stage=bake has it read"
        refuse(key, config.reference_run, why, "a run of hint_share=0.5")
