"""RunConfig: every key of a run, typed, with its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from toyqs.model.roles import ROLES, WeightGroups
from toyqs.objectives.registry import from_config, objective_class
from toyqs.objectives.rewards import OWN_LOSS
from toyqs.tasks.registry import registry
from toyqs.tasks.rev_prog import RevProg

# Settings that cannot change a run's numbers; `info` is a column all the same.
# eval_every is not among them: it decides which steps metrics.jsonl, and so the learning curve, holds.
OUTSIDE_KEY = (
    "force",
    "controls",
    "wandb_mode",
    "runs_dir",
    "processes",
    "checkpoint_every",
    "gradient_checkpointing",
)

WIDTHS = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")

KEPT = ("ema", "initial", "checkpoint")  # references that are a model kept beside the one that trains

MARKERS = 2  # that a thought adds to its symbols

EM_DASH = "\N{EM DASH}"

WEIGHED = ("gate", "hidden", "logits")  # mixings that weigh each thought against the base

TASKS: dict[str, type] = registry()


@dataclass
class RunConfig:
    """The keys at the root, their defaults those of the default job; None is written null."""

    # the model
    backbone: str = "gru"  # the memory of a core: gru, or a transformer: gpt2, llama, mistral, qwen2, qwen3
    pretrained: str | None = None  # a checkpoint's folder or hub name; it says what backbone and widths are
    lora_rank: int = 0  # R of the adapters that learn beside its frozen weights; 0: all weights learn
    model_n_layer: int = 2  # layers of a transformer
    model_n_head: int = 2  # its attention heads; they divide every width
    model_n_kv_head: int | None = None  # heads of keys and values, but in gpt2; None: as many
    base_lm_hidden_dim: int = 12  # width of base_lm, which reads the context for the prediction
    reasoner_hidden_dim: int = 24  # width of base_reasoner and reasoner
    interpreter_hidden_dim: int | None = None  # width of the interpreter; None: the reasoner's
    model_hidden_dim: int | None = None  # where given: every width
    use_reasoner: bool = True  # false: a plain language model without thoughts
    use_base_lm: bool = True  # false: the context reaches the prediction through the thought's symbols only
    weight_groups: list[str] = field(default_factory=lambda: ["A", "B", "C", "D"])  # a letter per role
    simple_lm_head: bool = False  # true: mixing auto adds the projected reading instead of concatenating it
    mixing: str = "auto"  # how base state and reading meet: auto, or one of checks/settings.py
    use_residual: bool = False  # true: the base logits are added to the thought's (mixing=sum)
    gate_floor: float = 0.0  # least weight of a thought at first, for gate, hidden, logits; 0 a quarter later
    linear_lm_head: bool = True  # false: an MLP with two hidden layers
    share_lm_head: bool = False  # true: thought symbols come from the LM head
    interpreter_start: str = "afresh"  # afresh: reads the symbols alone; onward: goes on from the reasoner
    different_eot: bool = True  # false: one marker both starts and ends a thought
    add_last_context_token: bool = False  # true: after the end marker x_t is fed again, and read there
    increment_pos_id_for_last_context_token: bool = False  # true: one position after its own (transformers)
    thought_vocab: int | None = 6  # thought symbols with a table of their own; None: the task's tokens
    meta_token_init: Any = None  # markers start as this thought symbol's embedding: an id, or a token's name
    meta_token_mode: str = "none"  # makes them learn faster: none, reparameterise, lr_multiplier, grad_scale
    meta_token_scale: float = 10.0  # by so much
    think_at: str = "marked"  # marked: where the task says, in texts everywhere or at times; all; hard
    hard_quantile: float = 0.75  # of hard: of the marked positions, those of higher entropy think
    trice_samples: int = 4  # K, thoughts per position
    max_reasoning_len: int = 3  # L, symbols per thought
    length_schedule: str = "constant"  # L in training: constant, long_to_short or short_to_long, in stages
    min_reasoning_len: int = 1  # the shortest L of such a schedule
    variable_len: bool = False  # true: the reasoner may end a thought sooner, by one more output
    adaptive_len: bool = False  # true: a thought has as many symbols as the task says, L at most
    thoughts: str = "token"  # what a symbol is: token, gaussian, gumbel, deterministic, state
    latent_dim: int = 4  # Z, numbers in a gaussian symbol
    sigma: float = 0.3  # about where the learned standard deviation of gaussian and state symbols starts
    gumbel_temperature: float = 1.0  # τ of gumbel symbols: lower is less biased, and noisier
    sampler: str = "policy"  # draws training's thoughts: policy, tempered, uniform (tokens), prior (gaussian)
    sampler_temperature: float = 2.0  # τ of sampler=tempered: π^(1/τ), flatter above 1
    # the objective
    objective: str = "reinforce"  # how rewards move the policy; a name in toyqs/objectives/
    reward: str = "likelihood"  # of a thought: likelihood, accuracy, log_ratio, kl_forward, kl_reverse
    reward_beta: float = 1.0  # of kl_reverse: weight of the prediction's entropy
    reference: str | None = None  # of rewards and thoughts; checks/reference.py lists all
    reference_decay: float = 0.99  # of reference=ema: what is left of the average at each step
    reference_run: str | None = None  # of reference=checkpoint: the folder of a finished run, runs/KEY
    thought_kl_beta: float = 0.0  # reward lost per nat that a thought is likelier than under the reference
    learned_reward: bool = False  # true: a model learns to expect that reward, and pays the policy instead
    reward_sees: str = "thought"  # how it tells a thought: thought, its symbols; prediction, what it predicts
    baseline: str = "leave_one_out"  # what a reward is compared with; checks/settings.py lists all
    value_sees: str = "average_thought"  # what a critic reads; model/critic.py says more
    critic_loss_beta: float = 1.0  # weight of the critic's own loss, and of the reward model's
    advantage_scale: str = "batch_std"  # none, batch_std, group_std (GRPO), positive_only
    temperature: float = 0.1  # β of the objectives that draw the policy towards exp(reward / β)
    temperature_scale: str = "absolute"  # absolute, or spread: in standard deviations of a group's rewards
    clip_ratio: float = 0.2  # of ppo_clip: how far a probability ratio may be from 1
    inner_steps: int = 1  # of ppo_clip: training steps on the same thoughts
    length_penalty: float = 0.0  # reward that each symbol of a thought of variable length costs
    punish_unfinished: float = 0.0  # reward that it costs not to end a thought within L symbols
    schedule_punfinished: bool = False  # true: that cost rises from 0, linearly over the training
    policy_loss_beta: float = 1.0  # weight of the policy loss; any finite number
    nll_loss_beta: float = 1.0  # weight of the prediction's loss
    entropy_encouragement_coef: float = 0.15  # weight of the entropy bonus, at the start of training
    entropy_schedule: str = "linear"  # of that weight: constant, or linear down to 0
    prior_beta: float = 0.0  # weight of the divergence of gaussian and state symbols from N(0, I)
    train_nll_num: int | None = None  # how many of the K thoughts carry the NLL; None: all
    n_tokens_ahead: int = 1  # N, tokens that each thinking position predicts and is rewarded for
    ahead: str = "persist"  # over those: persist, or continue: the interpreter reads the true tokens on
    ahead_decay: float = 1.0  # a token's weight against that of the one before, in reward and NLL
    teacher_forcing_weight: float = 1.0  # of the tokens after the first, in the NLL; the literature's is 0.5
    # training
    base_lr: float = 2e-2  # peak learning rate
    use_scheduler: bool = True  # false: the learning rate is constant
    schedule: str = "cosine"  # after the warm-up: linear or cosine
    clip_gradients: float = 1.0  # largest norm of a seed's gradient; 0: off
    max_steps: int = -1  # training steps; -1: the task's own number
    epochs: int = 50  # passes through a corpus where max_steps is -1
    data_loader_batch_size: int = 64  # B, sequences per training step
    grad_acc: int = 1  # parts of a batch whose gradients are added up before the step
    seq_len: int = 128  # of a text, in characters or tokens; generated tasks have a length of their own
    seed: Any = field(default_factory=lambda: [0, 1, 2, 3])  # one, or several side by side: one row each
    # the run
    debug_cfg: str | None = None  # a named variant of the settings (config_key.DEBUG_VARIANTS)
    info: str = ""  # a label, kept as a column
    controls: str = "fair"  # which controls run beside it: none, fair
    force: bool = False  # true: run again what is complete
    wandb_mode: str = "disabled"  # a mirror of the metrics: disabled, offline, online
    device: str = "cpu"  # cpu or cuda
    dtype: str = "float32"  # float32 or float64
    autocast: bool = False  # true: a transformer's matrix products in bfloat16; weights and softmaxes are not
    branch_attention: str = "dense"  # of a transformer's thoughts to their context: dense, or flex, on a GPU
    gradient_checkpointing: bool = False  # true: its layers run again in the backward pass: less memory
    runs_dir: str = "runs"  # where run folders, tables and figures go
    checkpoint_every: int = 0  # steps between checkpoints, from which a killed training goes on; 0: none
    eval_every: int = 0  # steps between evaluations while training; 0: twenty in all
    eval_sequences: int = 4096  # held-out sequences of the last evaluation
    processes: int | None = None  # worker processes for the arms; None: one per core, or one on a GPU
    task: Any = field(default_factory=RevProg)  # what is learnt; its own knobs are task.x

    @property
    def has_thoughts(self) -> bool:
        """Whether there are thoughts of one symbol or more."""
        return self.use_reasoner and self.max_reasoning_len > 0

    @property
    def lengths_vary(self) -> bool:
        """Whether thoughts may differ in length."""
        return self.has_thoughts and (self.variable_len or self.adaptive_len)

    @property
    def symbol_kind(self) -> str:
        """What a thought symbol is; token where there is none, so that zero-length thoughts are one run."""
        return self.thoughts if self.has_thoughts else "token"

    @property
    def has_policy_loss(self) -> bool:
        """Whether a score function trains the policy: not where the prediction's own gradient reaches it."""
        return bool(self.policy_loss_beta) and objective_class(self).uses_score_function

    @property
    def off_policy(self) -> bool:
        """Whether training draws thoughts by another law than the policy's."""
        return self.has_thoughts and self.sampler != "policy"

    @property
    def uses_reference(self) -> bool:
        """Whether a reward of this run reads a reference's prediction, be it only to report it."""
        return self.reward in OWN_LOSS or (self.reward == "log_ratio" and self.has_thoughts)

    @property
    def penalises_thought_kl(self) -> bool:
        """Whether thoughts pay for their divergence from those of the reference."""
        return bool(self.thought_kl_beta) and self.has_thoughts and self.has_policy_loss

    @property
    def has_reference_model(self) -> bool:
        """Whether a model that is not trained by gradient runs beside."""
        return self.reference in KEPT and (self.uses_reference or self.penalises_thought_kl)

    @property
    def mixer(self) -> str:
        """How base state and reading meet, `auto` settled."""
        if not self.use_base_lm:
            return "thought"
        if self.use_residual:
            return "sum"
        if self.mixing == "auto":
            together = "concat" if self.pretrained is None else "logits"
            return "add" if self.simple_lm_head else together
        return self.mixing

    @property
    def uses_base_lm(self) -> bool:
        """Whether base_lm computes anything: not if only the thought is seen and no role shares its core."""
        label = WeightGroups.parse(self.weight_groups).label
        alone = self.use_reasoner and label.count(label[0]) == 1
        return self.use_base_lm and not (alone and self.mixer == "thought")

    @property
    def predicts_without_thought(self) -> bool:
        """Whether the model predicts without a thought too."""
        interpreter = self.interpreter_hidden_dim or self.reasoner_hidden_dim
        as_wide = self.uses_base_lm and self.base_lm_hidden_dim == interpreter
        return self.mixer != "thought" or as_wide

    @property
    def num_ahead(self) -> int:
        """N: how many tokens each position predicts; a model without thoughts is a plain language model."""
        return self.n_tokens_ahead if self.use_reasoner else 1

    @property
    def longest_sequence(self) -> int:
        """Positions that a transformer needs for a sequence, its longest thought and the tokens ahead."""
        length = self.task.length(self.seq_len)
        if not self.use_reasoner:  # a plain model's weights must not hang on settings that are idle in it
            return length
        return length + self.max_reasoning_len + MARKERS + self.num_ahead

    @property
    def interpreter_reads_on(self) -> bool:
        """Whether the interpreter reads the true tokens on after a thought."""
        return self.num_ahead > 1 and self.ahead == "continue"

    @property
    def marker_start(self) -> int | None:
        """The thought symbol that the markers begin as: an id, or the token of a name.

        Where a text has no em dash, which the literature takes, a hyphen stands in for it.

        Returns:
            None: they begin at random; also where there is no token of the name, which the checks refuse.
        """
        given = self.meta_token_init
        if not self.use_reasoner or not self.max_reasoning_len or not isinstance(given, str):
            return given if self.use_reasoner and self.max_reasoning_len else None
        names = self.task.symbols(range(self.task.vocab_size))
        wanted = (given, "-") if given == EM_DASH else (given,)
        return next((names.index(name) for name in wanted if name in names), None)

    @property
    def has_critic(self) -> bool:
        """Whether something beside the model learns what its thoughts will earn."""
        return from_config(objective_class(self), self).has_critic

    @property
    def widths(self) -> dict[str, int]:
        """Hidden width of each role."""
        reasoner = self.reasoner_hidden_dim
        return {
            "base_lm": self.base_lm_hidden_dim,
            "base_reasoner": reasoner,
            "reasoner": reasoner,
            "interpreter": self.interpreter_hidden_dim or reasoner,
        }

    @property
    def width_unit(self) -> int:
        """What divides every width: a transformer's head takes its share, an even one if rotary."""
        return {"gru": 1, "gpt2": self.model_n_head}.get(self.backbone, 2 * self.model_n_head)

    @property
    def roles_in_use(self) -> list[str]:
        """The roles that compute something in this run, in the order of ROLES."""
        if not self.use_reasoner:
            return ["base_lm"]
        reasons = self.max_reasoning_len > 0 or self.interpreter_start == "onward"
        unused = set() if self.uses_base_lm else {"base_lm"}
        unused |= set() if reasons else {"base_reasoner", "reasoner"}
        return [role for role in ROLES if role not in unused]


def register() -> None:
    """Make RunConfig and the tasks known to Hydra; conf/config.yaml asks for them by these names."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig(task=MISSING))
    for name, kind in TASKS.items():
        store.store(group="task", name=name, node=kind)
