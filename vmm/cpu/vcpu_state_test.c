/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/unit_test.h"
#include "vmm/cpu/vcpu_state.h"
#include "vmm/devices/state_message.h"

#define XSAVE_BYTES 4096u

static Ferry__VcpuState *sample(void)
{
    Ferry__VcpuState *state = NULL;
    ProtobufCMessage **segments = NULL;
    static const uint8_t zeros[XSAVE_BYTES];

    ASSERT_OK(STATE_MESSAGE_CREATE(&ferry__vcpu_state__descriptor, &state));
    state->registers = calloc(16, sizeof(uint64_t));
    state->n_registers = 16;
    state->dr = calloc(4, sizeof(uint64_t));
    state->n_dr = 4;
    ASSERT_OK(
        state_repeated_create(&ferry__cpu_segment__descriptor, 8, &state->n_segments, &segments));
    state->segments = (Ferry__CpuSegment **)(void *)segments;
    ASSERT_OK(STATE_MESSAGE_CREATE(&ferry__cpu_table__descriptor, &state->gdt));
    ASSERT_OK(STATE_MESSAGE_CREATE(&ferry__cpu_table__descriptor, &state->idt));
    ASSERT_OK(STATE_MESSAGE_CREATE(&ferry__cpu_events__descriptor, &state->events));
    ASSERT_OK(state_bytes_set(&state->xsave, zeros, XSAVE_BYTES));
    ASSERT_OK(state_bytes_set(&state->lapic, zeros, 1024));
    state->xcr0 = 3;
    return state;
}

static struct err *validate(Ferry__VcpuState *state)
{
    struct err *err = vcpu_state_validate(state, 7, XSAVE_BYTES);
    ferry__vcpu_state__free_unpacked(state, NULL);
    return err;
}

TEST(a_whole_state_is_accepted)
{
    ASSERT_OK(validate(sample()));
}

TEST(missing_registers_are_refused)
{
    Ferry__VcpuState *state = sample();
    state->n_registers = 15;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->lapic.len = 1000;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    ferry__cpu_table__free_unpacked(state->idt, NULL);
    state->idt = NULL;
    assert_fails(validate(state), ERR_INVALID);
}

TEST(extended_state_that_the_guest_is_not_offered_is_refused)
{
    Ferry__VcpuState *state = sample();
    state->xcr0 = 0xe7;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->xsave.data[512] = 0xff;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->xsave.data[520 + 7] = 0x80;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->xsave.len = 100;
    assert_fails(validate(state), ERR_INVALID);
}

TEST(values_out_of_range_are_refused)
{
    Ferry__VcpuState *state = sample();
    state->segments[3]->selector = 0x10000;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->events->exception_vector = 32;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->run_state = (Ferry__CpuRunState)77;
    assert_fails(validate(state), ERR_INVALID);

    state = sample();
    state->events->in_smm = true;
    assert_fails(validate(state), ERR_INCOMPATIBLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_state_is_accepted),
        cmocka_unit_test(missing_registers_are_refused),
        cmocka_unit_test(extended_state_that_the_guest_is_not_offered_is_refused),
        cmocka_unit_test(values_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
