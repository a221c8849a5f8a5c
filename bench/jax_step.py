"""The same training step as a JAX program: the strongest peer that toyqs is compared with.

One compiled call makes several steps: `lax.scan` over them, `vmap` over seeds; loss, gradient, clipping and
AdamW inside, the state donated. It computes once what toyqs computes once.

Tried and left out, as none was ahead by more than a few percent at two sizes: a scan over a thought's symbols
(1.3 times as long), an unrolled one over positions, gathers of rows, or their gradients, as products with
one-hot vectors, cumulative sums as products, other generators of noise, no shared beginnings of thoughts.

JAX is needed for nothing else: this file is imported only where it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

# Read when JAX starts: one thread, no device but the CPU.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Parameters = Mapping[str, jax.Array]  # by the names that they have in toyqs, of one seed
Arrays = dict[str, np.ndarray]  # the same with the axis S
State = dict[str, Any]
START, END, FIRST_SYMBOL = 0, 1, 2  # rows of `_stepper`'s table


@dataclass(frozen=True)
class Model:
    """A GRU language model, with or without thoughts, and the plain numbers of its training step.

    Nothing is shared between roles; the interpreter starts afresh; head and base state are side by side.
    """

    thoughts: int  # K
    length: int  # L; 0: no thoughts
    positions: tuple[int, ...] | None  # that think and count, the same in every sequence; None: all
    scaled: bool  # advantages divided by their standard deviation
    entropy_beta: float
    lr: float
    max_norm: float

    def loss(
        self, parameters: Parameters, inputs: jax.Array, targets: jax.Array, given: jax.Array
    ) -> jax.Array:
        """Compute the loss of one seed.

        Args:
            parameters: see `Parameters`.
            inputs: (B, T) tokens.
            targets: (B, T') tokens, at the positions that count.
            given: (L, B · T', K), uniform numbers in [0, 1), or the symbols themselves, integers.
        """
        base = self._read(parameters, "A", inputs)
        logits = base @ parameters["head.weight_0"] + parameters["head.bias"]
        if not self.length:
            return -_at(jax.nn.log_softmax(logits), targets.reshape(-1)).mean()
        symbols, log_prob, entropy = self._think(parameters, self._read(parameters, "B", inputs), given)
        reading = self._interpret(parameters, symbols)
        logits = logits[:, None] + reading @ parameters["head.weight_1"]
        log_q = _at(jax.nn.log_softmax(logits), targets.reshape(-1, 1))
        reward = lax.stop_gradient(log_q)
        advantage = (reward - reward.mean(1, keepdims=True)) * (self.thoughts / (self.thoughts - 1))
        if self.scaled:
            advantage = advantage / (advantage.std() + 1e-3)
        return -(advantage * log_prob + log_q + self.entropy_beta * entropy).mean()

    def _read(self, parameters: Parameters, letter: str, inputs: jax.Array) -> jax.Array:
        """Return the states (B · T', D) at the positions that count."""
        core = f"cores.{letter}."
        rows = _project(parameters, core, parameters[core + "tokens.weight"])
        weight, bias = parameters[core + "backbone.weight_hh"], parameters[core + "backbone.bias_hh"][0]

        def step(hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            hidden = _gru(x, hidden, weight, bias)
            return hidden, hidden

        start = jnp.zeros((len(inputs), len(weight)), rows.dtype)
        states = lax.scan(step, start, rows[inputs.T])[1]
        if self.positions is not None:
            states = states[jnp.array(self.positions)]
        return states.swapaxes(0, 1).reshape(-1, len(weight))

    def _think(
        self, parameters: Parameters, hidden: jax.Array, given: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return symbols (L, n, K), log-probability and entropy (n, K) of thoughts, from states (n, D)."""
        rows, step = _stepper(parameters, "cores.C.")
        weight = parameters["thought_head.projection.weight"]
        bias = parameters["thought_head.projection.bias"][0]

        def draw(hidden: jax.Array, given: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            log_probs = jax.nn.log_softmax(hidden @ weight + bias)
            probs = jnp.exp(log_probs)
            symbols = given if given.dtype == jnp.int32 else _sample(probs, given)
            return symbols, _at(log_probs, symbols), -(probs * log_probs).sum(-1)

        # One state for all thoughts of a position until they differ.
        hidden = step(rows[START], hidden)[:, None]
        symbols, log_prob, entropy = draw(hidden, given[0])
        total = log_prob, jnp.broadcast_to(entropy, log_prob.shape)
        drawn = [symbols]
        for noise in given[1:]:
            hidden = step(rows[symbols + FIRST_SYMBOL], hidden)
            symbols, *more = draw(hidden, noise)
            total = total[0] + more[0], total[1] + more[1]
            drawn.append(symbols)
        return jnp.stack(drawn), *total

    def _interpret(self, parameters: Parameters, symbols: jax.Array) -> jax.Array:
        """Return the readings (n, K, D) of thoughts; equal beginnings of them are read once."""
        rows, step = _stepper(parameters, "cores.D.")
        state = step(rows[START], parameters["interpreter.start_state"].reshape(1, -1))
        count, prefix, depth = len(rows) - FIRST_SYMBOL, 0, 0
        while depth < self.length and count ** (depth + 1) <= symbols[0].size:
            state = step(rows[None, FIRST_SYMBOL:], state[:, None]).reshape(-1, state.shape[-1])
            prefix = prefix * count + symbols[depth]
            depth += 1
        if depth == self.length:
            return step(rows[END], state)[prefix]
        state = state[prefix]
        for each in symbols[depth:]:
            state = step(rows[each + FIRST_SYMBOL], state)
        return step(rows[END], state)

    def start(self, parameters: Parameters) -> State:
        """Return the state of a training, of seeds side by side: parameters and moments, all (S, ...)."""
        zeros = {name: jnp.zeros_like(value) for name, value in parameters.items()}
        more = {"squares": jax.tree.map(jnp.copy, zeros), "count": jnp.zeros((), jnp.int32)}
        return {"parameters": dict(parameters), "means": zeros, "key": jax.random.key(0), **more}

    @partial(jax.jit, static_argnums=0, donate_argnums=1)
    def steps(self, state: State, inputs: jax.Array, targets: jax.Array) -> State:
        """Make a training step on each of n batches.

        Args:
            state: from `start` or from here.
            inputs: (n, S, B, T) tokens.
            targets: (n, S, B, T') tokens.
        """
        return lax.scan(lambda state, batch: (self._step(state, *batch), None), state, (inputs, targets))[0]

    def _step(self, state: State, inputs: jax.Array, targets: jax.Array) -> State:
        key, own = jax.random.split(state["key"])
        shape = (len(inputs), self.length, targets[0].size, self.thoughts)
        gradients = jax.vmap(jax.grad(self.loss))(
            state["parameters"], inputs, targets, jax.random.uniform(own, shape)
        )
        count = state["count"] + 1
        update = jax.vmap(partial(self._adamw, count=count))
        moved = update(gradients, state["parameters"], state["means"], state["squares"])
        return {"key": key, "count": count} | dict(
            zip(("parameters", "means", "squares"), moved, strict=True)
        )

    def _adamw(
        self,
        gradients: Parameters,
        parameters: Parameters,
        means: Parameters,
        squares: Parameters,
        *,
        count: jax.Array,
    ) -> tuple[Parameters, Parameters, Parameters]:
        """Clip the gradient of a seed and step; torch's defaults, no weight decay."""
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradients.values()))
        scale = jnp.minimum(self.max_norm / (norm + 1e-6), 1.0)
        gradients = {name: scale * g for name, g in gradients.items()}
        means = {name: 0.9 * means[name] + 0.1 * g for name, g in gradients.items()}
        squares = {name: 0.999 * squares[name] + 0.001 * g * g for name, g in gradients.items()}
        rate, root = self.lr / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        moved = {
            name: value - rate * means[name] / (jnp.sqrt(squares[name]) / root + 1e-8)
            for name, value in parameters.items()
        }
        return moved, means, squares

    def gradients(
        self, parameters: Arrays, inputs: np.ndarray, targets: np.ndarray, symbols: np.ndarray
    ) -> Arrays:
        """Compute the gradients of the loss of forced symbols, with the axis S, in the parameters' dtype."""
        with jax.enable_x64(True):
            found = jax.jit(jax.vmap(jax.grad(self.loss)))(parameters, inputs, targets, symbols)
            return {name: np.array(gradient) for name, gradient in found.items()}


class Training:
    """A training that can be continued, compiled for each number of steps that it is asked for."""

    def __init__(
        self, model: Model, parameters: Arrays, batches: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Begin with parameters (S, ...), on batches of inputs and targets that are used again and again."""
        self.model, self.batches = model, batches
        self.state = model.start({name: jnp.array(value) for name, value in parameters.items()})
        self.compiled: dict[int, tuple[Any, Any]] = {}

    def prepare(self, count: int) -> None:
        """Compile so many steps."""
        if count not in self.compiled:
            texts = zip(*islice(cycle(self.batches), count), strict=True)
            data = tuple(jnp.array(np.stack(text), jnp.int32) for text in texts)
            program = Model.steps.lower(self.model, self.state, *data).compile()
            self.compiled[count] = program, data

    def steps(self, count: int) -> None:
        """Make so many steps, for which it is prepared."""
        program, data = self.compiled[count]
        self.state = jax.block_until_ready(program(self.state, *data))

    def peak(self) -> float:
        """Return the bytes that a step holds at most, by XLA's own plan."""
        self.prepare(1)
        plan = self.compiled[1][0].memory_analysis()
        held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
        return held + plan.temp_size_in_bytes


def _gru(x: jax.Array, hidden: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    x_r, x_z, x_n = jnp.split(x, 3, -1)
    g_r, g_z, g_n = jnp.split(hidden @ weight + bias, 3, -1)
    new = jnp.tanh(x_n + jax.nn.sigmoid(x_r + g_r) * g_n)
    return new + jax.nn.sigmoid(x_z + g_z) * (hidden - new)


def _stepper(parameters: Parameters, core: str) -> tuple[jax.Array, Any]:
    """Return the input rows (2 + symbols, 3 D) of a core that thinks or reads thoughts, and its step."""
    name = "thoughts.weight" if core + "thoughts.weight" in parameters else "tokens.weight"
    table = jnp.concatenate([parameters[core + "markers.weight"], parameters[core + name]])
    weight, bias = parameters[core + "backbone.weight_hh"], parameters[core + "backbone.bias_hh"][0]
    return _project(parameters, core, table), lambda x, hidden: _gru(x, hidden, weight, bias)


def _project(parameters: Parameters, core: str, table: jax.Array) -> jax.Array:
    return table @ parameters[core + "backbone.weight_ih"] + parameters[core + "backbone.bias_ih"]


def _sample(probs: jax.Array, noise: jax.Array) -> jax.Array:
    """Invert the cumulative distribution: (n, 1 or K, V) at (n, K)."""
    cumulative = jnp.cumsum(lax.stop_gradient(probs), -1)
    below = cumulative[..., :-1] <= noise[..., None] * cumulative[..., -1:]
    return below.sum(-1, dtype=jnp.int32)


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    """Return values (..., V) at indices (...), which broadcast; a gather's gradient would be slower."""
    return jnp.where(index[..., None] == jnp.arange(values.shape[-1]), values, 0).sum(-1)
