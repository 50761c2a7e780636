/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fpu.c - x87, SSE and AVX registers that carry sums for milliseconds on end, checked against
 * integer arithmetic: a lost or stale register file shows as a wrong sum.
 */
#include "tests/guests/guest.h"

#define ROUNDS 200000u

static uint64_t rounds, bad;
static bool has_avx;

static void fpu_start(void)
{
    uint32_t a = 1, b, c, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    (void)b;
    (void)d;
    /* OSXSAVE and AVX, and the system has enabled both halves of the registers. */
    if ((c & (1u << 27)) != 0 && (c & (1u << 28)) != 0) {
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        (void)high;
        has_avx = (low & 6) == 6;
    }
}

static uint64_t sum_x87(uint64_t seed)
{
    uint64_t result = 0;
    uint64_t left = ROUNDS;

    __asm__ volatile("fninit\n fildq %2\n fldz\n"
                     "1: fadd %%st(1), %%st\n dec %1\n jnz 1b\n"
                     "fistpq %0\n fstp %%st(0)\n"
                     : "=m"(result), "+r"(left)
                     : "m"(seed)
                     : "cc", "memory");
    return result;
}

static uint64_t sum_sse(uint64_t seed)
{
    uint64_t result;
    uint64_t left = ROUNDS;

    __asm__ volatile("movq %2, %%xmm7\n pxor %%xmm6, %%xmm6\n"
                     "1: paddq %%xmm7, %%xmm6\n dec %1\n jnz 1b\n"
                     "movq %%xmm6, %0\n"
                     : "=&r"(result), "+r"(left)
                     : "r"(seed)
                     : "cc", "xmm6", "xmm7");
    return result;
}

/* The upper halves of the registers only: they are what a save of SSE state alone would lose. */
static uint64_t sum_avx(uint64_t seed)
{
    uint64_t result;
    uint64_t left = ROUNDS;

    __asm__ volatile("vmovq %2, %%xmm5\n vpermilps $0x44, %%xmm5, %%xmm5\n"
                     "vinsertf128 $1, %%xmm5, %%ymm5, %%ymm5\n"
                     "vextractf128 $1, %%ymm5, %%xmm4\n vxorps %%ymm3, %%ymm3, %%ymm3\n"
                     "1: vextractf128 $1, %%ymm3, %%xmm2\n vpaddq %%xmm4, %%xmm2, %%xmm2\n"
                     "vinsertf128 $1, %%xmm2, %%ymm3, %%ymm3\n dec %1\n jnz 1b\n"
                     "vextractf128 $1, %%ymm3, %%xmm2\n vmovq %%xmm2, %0\n vzeroupper\n"
                     : "=&r"(result), "+r"(left)
                     : "r"(seed)
                     : "cc", "xmm2", "xmm3", "xmm4", "xmm5");
    return result;
}

static void fpu_step(void)
{
    uint64_t seed = rounds % 100000 + 1;
    uint64_t expected = seed * ROUNDS;

    bad += sum_x87(seed) != expected;
    bad += sum_sse(seed) != expected;
    if (has_avx)
        bad += sum_avx(seed) != expected;
    rounds++;
}

static void fpu_report(void)
{
    print_number("rounds", rounds);
    print_number("avx", has_avx);
    print_number("bad", bad);
}

const struct job fpu_job = {"fpu", fpu_start, fpu_step, fpu_report};
