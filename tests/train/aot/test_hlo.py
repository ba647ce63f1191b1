"""Reading a compiled program: what is counted is what shapes say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from metarec_jax.train.aot.hlo import _meetings, parse, size, tally
from metarec_jax.train.sharding import USERS, user_mesh


def text_of(function, *shapes, **options):
    """The text of the compiled program, for shapes of float32 arrays."""
    arguments = [s if hasattr(s, "dtype") else jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return jax.jit(function, **options).lower(*arguments).compile().as_text()


def test_products_count_two_for_each_pair():
    found = tally(text_of(lambda a, b: a @ b, (30, 40), (40, 50)))
    assert found.flops == 2 * 30 * 40 * 50
    assert found.bytes >= 4 * (30 * 40 + 40 * 50 + 30 * 50)
    assert (found.cycles, found.sent, found.guessed) == (0, {}, 0)


def test_the_body_of_a_loop_counts_at_every_turn():
    def seven(a, b):
        return jax.lax.fori_loop(0, 7, lambda _, x: jnp.tanh(x @ b), a)

    assert tally(text_of(seven, (30, 40), (40, 40))).flops == 7 * 2 * 30 * 40 * 40


def test_turns_that_only_the_data_knows_are_asked_for():
    def some(a, b, turns):
        with jax.named_scope("chunks"):
            return jax.lax.fori_loop(0, turns, lambda _, x: jnp.tanh(x @ b), a)

    text = text_of(some, (30, 40), (40, 40), jax.ShapeDtypeStruct((), jnp.int32))
    once = 2 * 30 * 40 * 40
    assert (tally(text).flops, tally(text).guessed) == (once, 1)
    asked = []
    found = tally(text, lambda path: asked.append(path) or 5)
    assert (found.flops, found.guessed) == (5 * once, 0)
    assert "chunks/" in asked[0]


def test_a_sum_over_devices_is_counted_with_its_bytes():
    mesh = user_mesh(8)
    rows = jax.ShapeDtypeStruct((64, 40), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(USERS)))
    whole = NamedSharding(mesh, PartitionSpec())
    found = tally(text_of(lambda x: x.sum(axis=0), rows, out_shardings=whole))
    assert (found.calls, found.sent) == ({"all-reduce": 1}, {"all-reduce": 4 * 40})
    found = tally(text_of(lambda x: x * 2, rows, out_shardings=whole))
    assert (found.calls, found.sent) == ({"all-gather": 1}, {"all-gather": 4 * 64 * 40})


TPU = """\
HloModule jit_step, is_scheduled=true

%cond (p: (s32[], f32[8,128])) -> pred[] {
  %p = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %n = s32[]{:T(128)} constant(6)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%inside (a: bf16[4,16,64], b: bf16[4,64,32]) -> f32[4,16,32] {
  %a = bf16[4,16,64]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %b = bf16[4,64,32]{2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %c = f32[4,16,32]{2,1,0} convolution(%a, %b), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf
}

%body (p.1: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.1 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x = bf16[4,16,64]{2,1,0:T(8,128)(2,1)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %y = bf16[4,64,32]{2,1,0:T(8,128)(2,1)} custom-call(), custom_call_target="AllocateBuffer"
  %f = f32[4,16,32]{2,1,0} fusion(%x, %y), kind=kOutput, calls=%inside, backend_config={"estimated_cycles":"1000"}
  ROOT %t = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%p.1, %p.1)
}

ENTRY %main (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0:T(8,128)} parameter(0)
  %z = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%q, %q)
  %w = (s32[], f32[8,128]{1,0:T(8,128)}) while(%z), condition=%cond, body=%body
  %r = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
  ROOT %s = f32[8,128]{1,0:T(8,128)} all-reduce(%r), replica_groups={{0,1}}, to_apply=%add
}
"""
"""What libtpu writes: batch axes of a product as a window, layouts with tiles, S(1) for scratch memory."""


def test_the_text_of_a_tpu_program_is_read():
    computations, entry = parse(TPU)
    assert entry == "main"
    assert [step.operation for step in computations["body"]][-2:] == ["fusion", "tuple"]
    found = tally(TPU)
    assert found.cycles == 6 * 1000
    assert found.flops == 6 * 2 * 4 * 16 * 64 * 32, "four products of a batch, and none between them"
    assert found.sent == {"all-reduce": 4 * 8 * 128}
    moved_by_fusion = 2 * 4 * 64 * 32 + 4 * 4 * 16 * 32
    assert found.bytes == 6 * (moved_by_fusion + 2 * 4 * 64 * 32) + 2 * 4 * 8 * 128


@pytest.mark.parametrize(
    ("type_", "whole", "main"),
    [
        ("f32[]", 4, 4),
        ("bf16[3,5]{1,0:T(8,128)(2,1)}", 30, 30),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30, 0),
        ("(s32[2]{0}, pred[4]{0:S(1)})", 12, 8),
        ("s4[8]{0}", 4, 4),
    ],
)
def test_sizes_of_types(type_, whole, main):
    assert size(type_) == whole
    assert size(type_, main_memory=True) == main


def test_what_is_updated_in_place_counts_as_the_slice():
    def put(table, row):
        return jax.lax.dynamic_update_slice(table, row, (3, 0))

    found = tally(text_of(put, (1000, 64), (1, 64), donate_argnums=0))
    assert found.bytes < 10 * 4 * 64
    assert np.isfinite(found.bytes)


@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("dilate", [1, 3, 4])
@pytest.mark.parametrize("low", [0, 3, -1])
def test_pairs_of_an_output_and_an_input_are_counted_as_one_would_by_hand(spread, dilate, low):
    """Of a convolution's outputs, taps and inputs, those that meet: not padding, and not a hole."""
    for places, taps, inputs, stride in ((4, 4, 4, 3), (7, 4, 4, 1), (5, 2, 9, 2), (1, 6, 6, 1)):
        by_hand = sum(
            0 <= (at := place * stride + tap * spread - low) <= (inputs - 1) * dilate and at % dilate == 0
            for place in range(places)
            for tap in range(taps)
        )
        assert _meetings(places, taps, inputs, low, stride, dilate, spread) == by_hand
