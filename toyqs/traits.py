"""What a configuration amounts to: facts that several settings decide together."""

from __future__ import annotations

from toyqs.config import RunConfig
from toyqs.model.roles import ROLES, WeightGroups
from toyqs.objectives.family import member, with_settings
from toyqs.objectives.objective import OWN_LOSS

WIDTHS = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")

KEPT = ("ema", "initial", "checkpoint")  # references that are a model kept beside the one that trains

MARKERS = 2  # that a thought adds to its symbols

EM_DASH = "\N{EM DASH}"

WEIGHED = ("gate", "hidden", "logits")  # mixings that weigh each thought against the base


def speaks(config: RunConfig) -> bool:
    """Whether there are thoughts of one symbol or more."""
    return config.use_reasoner and config.max_reasoning_len > 0


def ends_apart(config: RunConfig) -> bool:
    """Whether thoughts may differ in length."""
    return speaks(config) and (config.variable_len or config.adaptive_len)


def thoughts_of(config: RunConfig) -> str:
    """What a thought symbol is; token where there is none, so that zero-length thoughts are one run."""
    return config.thoughts if speaks(config) else "token"


def has_policy_loss(config: RunConfig) -> bool:
    """Whether a score function trains the policy: not where the prediction's own gradient reaches it."""
    return bool(config.policy_loss_beta) and member(config).scores


def off_policy(config: RunConfig) -> bool:
    """Whether training draws thoughts by another law than the policy's."""
    return speaks(config) and config.sampler != "policy"


def asks_reference(config: RunConfig) -> bool:
    """Whether a reward of this run reads a reference's prediction, be it only to report it."""
    return config.reward in OWN_LOSS or (config.reward == "log_ratio" and speaks(config))


def charges_divergence(config: RunConfig) -> bool:
    """Whether thoughts pay for their divergence from those of the reference."""
    return bool(config.thought_kl_beta) and speaks(config) and has_policy_loss(config)


def keeps_model(config: RunConfig) -> bool:
    """Whether a model that is not trained by gradient runs beside."""
    return config.reference in KEPT and (asks_reference(config) or charges_divergence(config))


def mixing_of(config: RunConfig) -> str:
    """How base state and reading meet, `auto` settled."""
    if not config.use_base_lm:
        return "thought"
    if config.use_residual:
        return "sum"
    if config.mixing == "auto":
        together = "concat" if config.pretrained is None else "logits"
        return "add" if config.simple_lm_head else together
    return config.mixing


def base_matters(config: RunConfig) -> bool:
    """Whether base_lm computes anything: not where only the thought is seen and no role shares its core."""
    label = WeightGroups.parse(config.weight_groups).label
    alone = config.use_reasoner and label.count(label[0]) == 1
    return config.use_base_lm and not (alone and mixing_of(config) == "thought")


def speaks_alone(config: RunConfig) -> bool:
    """Whether the model predicts without a thought too."""
    interpreter = config.interpreter_hidden_dim or config.reasoner_hidden_dim
    as_wide = base_matters(config) and config.base_lm_hidden_dim == interpreter
    return mixing_of(config) != "thought" or as_wide


def tokens_ahead(config: RunConfig) -> int:
    """N: how many tokens each position predicts; a model without thoughts is a plain language model."""
    return config.n_tokens_ahead if config.use_reasoner else 1


def longest_sequence(config: RunConfig) -> int:
    """Positions that a transformer needs for a sequence, its longest thought and the tokens ahead."""
    length = config.task.length(config.seq_len)
    if not config.use_reasoner:  # a plain model's weights must not hang on settings that are idle in it
        return length
    return length + config.max_reasoning_len + MARKERS + tokens_ahead(config)


def goes_on(config: RunConfig) -> bool:
    """Whether the interpreter reads the true tokens on after a thought."""
    return tokens_ahead(config) > 1 and config.ahead == "continue"


def marker_symbol(config: RunConfig) -> int | None:
    """The thought symbol that the markers begin as: an id, or the token of a name.

    Where a text has no em dash, which the literature takes, a hyphen stands in for it.

    Returns:
        None: they begin at random; also where there is no token of the name, which the checks refuse.
    """
    given = config.meta_token_init
    if not config.use_reasoner or not config.max_reasoning_len or not isinstance(given, str):
        return given if config.use_reasoner and config.max_reasoning_len else None
    names = config.task.symbols(range(config.task.vocab_size))
    wanted = (given, "-") if given == EM_DASH else (given,)
    return next((names.index(name) for name in wanted if name in names), None)


def has_critic(config: RunConfig) -> bool:
    """Whether something beside the model learns what its thoughts will earn."""
    return with_settings(member(config), config).has_critic


def widths(config: RunConfig) -> dict[str, int]:
    """Hidden width of each role."""
    reasoner = config.reasoner_hidden_dim
    return {
        "base_lm": config.base_lm_hidden_dim,
        "base_reasoner": reasoner,
        "reasoner": reasoner,
        "interpreter": config.interpreter_hidden_dim or reasoner,
    }


def width_unit(config: RunConfig) -> int:
    """What every width is a multiple of: a head of a transformer takes its share, an even one if rotary."""
    return {"gru": 1, "gpt2": config.model_n_head}.get(config.backbone, 2 * config.model_n_head)


def roles_in_use(config: RunConfig) -> list[str]:
    """The roles that compute something in this run, in the order of ROLES."""
    if not config.use_reasoner:
        return ["base_lm"]
    reasons = config.max_reasoning_len > 0 or config.interpreter_start == "onward"
    unused = set() if base_matters(config) else {"base_lm"}
    unused |= set() if reasons else {"base_reasoner", "reasoner"}
    return [role for role in ROLES if role not in unused]
