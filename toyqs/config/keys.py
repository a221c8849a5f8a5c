"""Every key of a run, typed, with its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toyqs.config import choices
from toyqs.config.choices import DEBUG_VARIANTS, number, one_of
from toyqs.model.backbones.backbone import FAMILIES
from toyqs.model.latent_heads import HEADS
from toyqs.model.mixing import MIXERS
from toyqs.objectives.advantages import ADVANTAGE_SCALES, BASELINES
from toyqs.objectives.registry import registry as objectives
from toyqs.objectives.rewards import REWARDS
from toyqs.tasks.registry import registry as tasks
from toyqs.tasks.rev_prog import RevProg
from toyqs.training.optimizers.muon import ADJUSTMENTS
from toyqs.training.optimizers.optimizer import METHODS

# Settings that cannot change a run's numbers; `info` is a column all the same.
# eval_every is not among them: it decides which steps metrics.jsonl, and so the learning curve, holds.
OUTSIDE_KEY = (
    *("plan", "force", "keep_going", "controls", "runs_dir", "processes", "checkpoint_every"),
    *("tracker", "wandb_mode", "wandb_project", "wandb_entity", "wandb_tags"),
    *("thoughts_every", "log_coherence", "gradient_checkpointing", "auto_find_grad_acc", "cuda_graphs"),
    "plugins",  # what is used of plug-ins counts by content
)

# Settings that name a finished run from which a run starts.
STARTS = ("start_from", *(f"infer_pretrained_{roles}" for roles in ("base", "reasoner", "base_reasoner")))

WIDTHS = ("base_lm_hidden_dim", "reasoner_hidden_dim", "interpreter_hidden_dim")
RATES = ("base_lm_lr", "reasoner_lr", "interpreter_lr")

TASKS: dict[str, type[Any]] = tasks()


@dataclass
class Keys:
    """The keys at the root, their defaults those of the default job; None is written null."""

    # 1. the backbone
    backbone: str = one_of("gru", ("gru", *FAMILIES))  # of every core: a GRU, or a transformer's layers
    pretrained: str | None = None  # a checkpoint's folder or hub name; it says what backbone and widths are
    start_from: str | None = None  # a finished run, whose weights this one starts from: runs/KEY, or its KEY
    infer_pretrained_base: str | None = None  # the same for base_lm alone
    infer_pretrained_reasoner: str | None = None  # for base_reasoner, reasoner with its head, interpreter
    infer_pretrained_base_reasoner: str | None = None  # for all roles, whichever weights the run shares
    lora_rank: int = number(0, at_least=0)  # R of adapters on its frozen weights; 0: all its weights learn
    model_n_layer: int = number(2, at_least=1)  # layers of a transformer
    model_n_head: int = number(2, at_least=1)  # its attention heads; they divide every width
    model_n_kv_head: int | None = number(None, at_least=1)  # heads of keys and values; None: as many
    positions_up_to: int | None = number(None, at_least=1)  # rows of gpt2's table; None: as many as needed
    # 2. roles and widths
    base_lm_hidden_dim: int = number(12, at_least=1)  # width of base_lm, which reads the context to predict
    reasoner_hidden_dim: int = number(24, at_least=1)  # width of base_reasoner and reasoner
    interpreter_hidden_dim: int | None = number(None, at_least=1)  # of the interpreter; None: the reasoner's
    model_hidden_dim: int | None = number(None, at_least=1)  # where given: every width
    use_reasoner: bool = True  # false: a plain language model without thoughts
    use_base_lm: bool = True  # false: no base state; read afresh, the symbols alone tell of the context
    weight_groups: list[str] = field(default_factory=lambda: ["A", "B", "C", "D"])  # a letter per role
    interpreter_start: str = one_of("afresh", ("afresh", "onward"))  # onward: from the reasoner's last state
    thought_into: str = one_of("prediction", ("prediction", "state"))  # state: base_lm's next input as well
    # 3. the prediction
    mixing: str = one_of("auto", MIXERS, "auto")  # how base state and reading are combined
    simple_lm_head: bool = False  # true: mixing=auto projects the reading to the base's width and adds it
    use_residual: bool = False  # true: the base logits are added to the thought's (mixing=sum)
    attend_by: str = one_of("learned", ("learned", "scores"))  # of mixing=attend: what weighs the thoughts
    attend_temperature: float = number(0.1, above=0)  # of attend_by=scores: weights ∝ exp(score / τ)
    gate_floor: float = number(0.0, at_least=0)  # least weight of a thought at first: gate, hidden, logits
    linear_lm_head: bool = True  # false: an MLP with two hidden layers
    lm_head_layers: int = number(1, at_least=1)  # of a linear head, with nothing between them
    share_lm_head: bool = False  # true: thought symbols come from the LM head
    n_tokens_ahead: int = number(1, at_least=1)  # N, tokens that each thinking position predicts
    ahead: str = one_of("persist", ("persist", "continue", "joint"))  # joint: all from what was read before
    ahead_decay: float = number(1.0, at_least=0)  # a token's weight against the one before, in reward and NLL
    teacher_forcing_weight: float = number(1.0, at_least=0)  # of the tokens after the first, in the NLL
    # 4. positions and lengths of thoughts
    think_at: str = one_of("marked", ("marked", "all", "hard"))  # marked: where the task says
    hard_quantile: float = 0.75  # of hard: of the marked positions, those of higher entropy think
    trice_samples: int = number(4, at_least=1)  # K, thoughts per position
    max_reasoning_len: int = number(3, at_least=0)  # L, symbols per thought
    length_schedule: str = one_of("constant", choices.LENGTH_SCHEDULES)  # L by stages, or drawn in each step
    min_reasoning_len: int = number(1, at_least=1)  # the shortest L of such a schedule
    variable_len: bool = False  # true: the reasoner may end a thought sooner, by one more output
    adaptive_len: bool = False  # true: a thought has as many symbols as the task says, L at most
    adaptive_by: str = one_of("task", ("task", "problem"))  # problem: by the length of what is asked
    problem_per_symbol: int = number(5, at_least=1)  # of problem: tokens per symbol, rounded down
    hide_last_token: bool = False  # true: thoughts begin before base_reasoner reads the token at a position
    # 5. symbols of thoughts
    thoughts: str = one_of("token", HEADS)  # the kind of a symbol
    thought_vocab: int | None = number(6, at_least=1)  # thought symbols of their own; None: the task's tokens
    latent_dim: int = number(4, at_least=1)  # Z, numbers in a gaussian symbol
    sigma: float = number(0.3, above=0)  # standard deviation of gaussian and state symbols at the start
    gumbel_temperature: float = number(1.0, above=0)  # τ of gumbel symbols: lower is less biased, and noisier
    thought_logits: str = one_of("linear", ("linear", "cosine"))  # cosine: bounded, of tokens of their own
    thought_logit_scale: float = number(7.0, above=0)  # of cosine: the largest logit, and minus the least
    markov_reasoner: bool = False  # true: a symbol depends on the one before alone, the first on the context
    interpreter_reads: str = one_of("all", ("all", "last"))  # last: of a thought's symbols the last one alone
    sampler: str = one_of("policy", ("policy", *choices.SAMPLERS))  # draws the thoughts of training
    sampler_temperature: float = number(2.0, above=0)  # τ of sampler=tempered: π^(1/τ), flatter above 1
    random_thoughts: bool = False  # true: symbols uniform or from N(0, I), always; nothing trains a policy
    different_eot: bool = True  # false: one marker both starts and ends a thought
    add_last_context_token: bool = False  # true: after the end marker x_t is fed again, and read from
    increment_pos_id_for_last_context_token: bool = False  # true: one position after its own (transformers)
    meta_token_init: Any = None  # markers start as this thought symbol's embedding: an id, or a token's name
    meta_token_mode: str = one_of("none", choices.META_TOKEN_MODES)  # how markers learn faster
    meta_token_scale: float = number(10.0, above=0)  # how many times faster
    # 6. the reward of a thought
    reward: str = one_of("likelihood", REWARDS)  # objectives/rewards.py has the equations
    reward_beta: float = number(1.0, at_least=0)  # of kl_reverse: weight of the prediction's entropy
    trajectory_alpha: float = number(0.0, at_least=0)  # of trajectory: step l weighs l^α; 0: all alike
    reference: str | None = one_of(None, (None, *choices.REFERENCES))  # of rewards and thoughts
    reference_decay: float = number(0.99, at_least=0)  # of reference=ema: weight of the old average
    reference_run: str | None = None  # of reference=checkpoint: the folder of a finished run, runs/KEY
    thought_kl_beta: float = number(0.0, at_least=0)  # reward lost per nat of log π(h|x) over the reference's
    coherence_beta: float = number(0.0, at_least=0)  # reward of a thought's coherence, which is from 0 to 1
    coherence_semantic: float = number(0.4, at_least=0)  # share in it: the reading points as the base state
    coherence_syntactic: float = number(0.3, at_least=0)  # share: its symbols are likely under base_lm
    coherence_predictive: float = number(0.3, at_least=0)  # share: the true token gets likelier by it
    length_penalty: float = number(0.0, at_least=0)  # reward that a symbol of a variable_len thought costs
    punish_unfinished: float = number(0.0, at_least=0)  # reward lost without an end within L symbols
    schedule_punfinished: bool = False  # true: that cost rises from 0, linearly over the training
    learned_reward: bool = False  # true: a model learns to expect the reward, and pays the policy instead
    reward_sees: str = one_of("thought", ("thought", "prediction"))  # what that model reads of a thought
    shuffle_rewards: bool = False  # true: each position's thoughts are paid what those of another one earned
    # 7. the objective of the policy
    objective: str = one_of("reinforce", objectives())  # how rewards move the policy; a name in objectives/
    baseline: str = one_of("leave_one_out", BASELINES)  # what a reward is compared with
    value_sees: str = one_of("average_thought", choices.VALUE_INPUTS)  # what a critic reads
    advantage_scale: str = one_of("batch_std", ADVANTAGE_SCALES)  # how advantages are scaled
    credit: str = one_of("outcome", ("outcome", "prefix"))  # prefix: symbols are paid what they add
    temperature: float = number(0.1, above=0)  # β of the objectives that draw the policy to exp(reward / β)
    temperature_scale: str = one_of("absolute", ("absolute", "spread"))  # spread: in a group's deviations
    clip_ratio: float = number(0.2, above=0)  # of ppo_clip: how far a probability ratio may be from 1
    clip_each: str = one_of("thought", ("thought", "symbol"))  # of ppo_clip: what each clipped ratio is of
    inner_steps: int = number(1, at_least=1)  # of ppo_clip: training steps on the same thoughts
    warm_start: int = number(0, at_least=0)  # first steps in which sequences, ever fewer, have right thoughts
    warm_start_as: str = one_of("thoughts", ("thoughts", "labels"))  # labels: states say them, in controls
    # 8. weights of the loss
    policy_loss_beta: float = 1.0  # of the policy loss; any finite number
    nll_loss_beta: float = number(1.0, at_least=0)  # of the prediction's loss
    base_nll_beta: float = number(0.0, at_least=0)  # of the prediction without a thought, trained beside it
    prefix_nll_beta: float = number(0.0, at_least=0)  # of predictions with a thought's first symbols alone
    prediction_kl_beta: float = number(0.0, at_least=0)  # of KL(prediction || reference), beside the NLL
    train_nll_num: int | None = number(None, at_least=1)  # how many of the K thoughts carry it; None: all
    critic_loss_beta: float = number(1.0, at_least=0)  # of the critic's own loss, and the reward model's
    entropy_encouragement_coef: float = number(0.15, at_least=0)  # of the entropy bonus, at the start
    entropy_schedule: str = one_of("linear", ("constant", "linear"))  # of that weight: linear falls to 0
    prior_beta: float = number(0.0, at_least=0)  # of gaussian and state symbols' divergence from N(0, I)
    # 9. training
    stage: str = one_of("train", ("train", "bake"))  # bake: learn to predict as start_from does with a hint
    hint_share: float = number(0.0, at_least=0)  # of a batch's sequences, those read with their task's hint
    base_lr: float = number(2e-2, above=0)  # peak learning rate; where no rate of a role says another
    base_lm_lr: float | None = number(None, above=0)  # of base_lm's core; None: base_lr
    reasoner_lr: float | None = number(None, above=0)  # of base_reasoner, reasoner and its symbols' head
    interpreter_lr: float | None = number(None, above=0)  # of the interpreter
    # adam: weight decay in the gradient; sgd: without momentum; muon: on the matrices of hidden layers
    optimizer: str = one_of("adamw", (*METHODS, "muon_grokfast"))  # muon_grokfast: on filtered gradients
    adjust_lr_fn: str = one_of("match_rms_adamw", tuple(ADJUSTMENTS))  # how muon's rate follows the shape
    # λ times a moving mean of gradients is added to each; None: 0.1 of muon_grokfast, 0 of the others
    grokfast_lambda: float | None = number(None, at_least=0)  # λ; 0: gradients stay as they are
    grokfast_alpha: float = number(0.98, at_least=0)  # α of that mean: the weight of what it was before
    qk_clip: float = number(0.0, at_least=0)  # largest attention logit of a transformer's heads; 0: any
    use_scheduler: bool = True  # false: the learning rate is constant
    schedule: str = one_of("cosine", ("linear", "cosine"))  # of the learning rate, after the warm-up
    clip_gradients: float = number(1.0, at_least=0)  # largest norm of a seed's gradient; 0: off
    weight_decay: float = number(0.0, at_least=0)  # on every parameter; it is times the rate
    max_steps: int = -1  # training steps; -1: the task's own number
    epochs: int = number(50, at_least=1)  # passes through a corpus where max_steps is -1
    data_loader_batch_size: int = number(64, at_least=1)  # B, sequences per training step
    grad_acc: int = number(1, at_least=1)  # parts of a batch whose gradients are added up before the step
    chunk_positions: int | None = number(None, at_least=0)  # that think at a time; 0: all; None: by the sizes
    auto_find_grad_acc: bool = True  # a step that finds no memory is made again in smaller parts
    seq_len: int = number(128, at_least=1)  # of a text, in characters or tokens; generated tasks have theirs
    seed: Any = field(default_factory=lambda: [0, 1, 2, 3])  # one, or several side by side: one row each
    # 10. the run
    task: Any = field(default_factory=RevProg)  # what is learnt; its own settings are task.x
    plugins: Any = field(default_factory=list)  # files, folders or installed ones that add choices
    plugin: dict[str, Any] = field(default_factory=dict)  # their own settings, plugin.NAME.x
    controls: str = one_of("fair", ("none", "fair", "all"))  # which controls run with it
    debug_cfg: str | None = one_of(None, (None, *DEBUG_VARIANTS))  # a named variant of the settings
    info: str = ""  # a label, kept as a column
    device: str = one_of("cpu", ("cpu", "cuda"))  # where it trains
    cuda_graphs: bool = False  # true: a GRU's steps on a GPU are replayed as CUDA graphs
    dtype: str = one_of("float32", ("float32", "float64"))  # of weights and of all that is computed
    kernels: str = one_of("auto", ("auto", "native", "torch"))  # native: a GRU's or GPT-2's on a CPU
    autocast: bool = False  # true: a transformer's matrix products in bfloat16; weights and softmaxes are not
    branch_attention: str = one_of("dense", ("dense", "flex"))  # of a transformer; flex: on a GPU
    gradient_checkpointing: bool = False  # true: its layers run again in the backward pass: less memory
    eval_every: int = number(0, at_least=0)  # steps between evaluations while training; 0: twenty in all
    eval_sequences: int = number(4096, at_least=1)  # held-out sequences of the last evaluation
    checkpoint_every: int = number(0, at_least=0)  # steps between checkpoints to resume from; 0: none
    log_coherence: bool = False  # true: evaluations and records have each thought's coherence
    thoughts_every: int = number(0, at_least=0)  # steps between records of thoughts in training; 0: none
    runs_dir: str = "runs"  # where run folders, tables and figures go
    plan: bool = False  # true: print what the command would do, and stop
    force: bool = False  # true: run again what is complete
    keep_going: bool = False  # true: refused combinations do not stop a sweep's others
    processes: int | None = number(None, at_least=1)  # workers for the arms; None: one per core, one on a GPU
    tracker: str = one_of("none", ("none", "wandb", "tensorboard"))  # mirrors the metrics; files have all
    wandb_mode: str = one_of("disabled", ("disabled", "offline", "online"))  # other than disabled: wandb so
    wandb_project: str | None = None  # None: WANDB_PROJECT of the environment, else toyqs
    wandb_entity: str | None = None  # a user or team; None: the one of the API key
    wandb_tags: list[str] = field(default_factory=list)  # of the runs; `info` is one too
