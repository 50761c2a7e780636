/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid_features.c - see cpuid_features.h.
 *
 * Never offered: what would need state that Ferry does not move (performance counters, AMX, CET,
 * nested virtualization's own, SGX) and what tells the guest about power and errors of the host.
 * Tested by: cpuid_test.c.
 */
#include "vmm/cpu/cpuid_features.h"

#include <stdio.h>
#include <string.h>

#include "base/checked_math.h"

#define BIT(n) ((uint32_t)1 << (n))

/* clang-format off */
const struct cpuid_feature_row cpuid_feature_rows[] = {
    {0x1, 0, CPUID_ECX,
     .offered = ~(BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(15) | BIT(18)),
     .v2 = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23),
     .v3 = BIT(12) | BIT(22) | BIT(26) | BIT(28) | BIT(29),
     .optional = BIT(1) | BIT(17) | BIT(21) | BIT(24) | BIT(25) | BIT(27) | BIT(30) | BIT(31),
     .names = "sse3 pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr "
              "pdcm - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave "
              "avx f16c rdrand hypervisor"},
    {0x1, 0, CPUID_EDX,
     .offered = ~(BIT(18) | BIT(21) | BIT(22) | BIT(29) | BIT(31)),
     .v2 = BIT(0) | BIT(8) | BIT(15) | BIT(23) | BIT(24) | BIT(25) | BIT(26),
     .optional = ~(BIT(18) | BIT(21) | BIT(22) | BIT(29) | BIT(31)),
     .names = "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush "
              "- ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
    {0x6, 0, CPUID_EAX, .offered = BIT(2), .optional = BIT(2),
     .names = "dtherm turbo arat - pln - ptm hwp - - - - - - - - - - - - - - - - - - - - - - - -"},
    {0x7, 0, CPUID_EBX,
     .offered = ~(BIT(2) | BIT(12) | BIT(15) | BIT(25)),
     .v3 = BIT(3) | BIT(5) | BIT(8),
     .optional = BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(18) | BIT(19) | BIT(20) | BIT(23) | BIT(24) | BIT(29),
     .names = "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm cqm "
              "zero-fcs-fds mpx rdt-a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb "
              "intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl"},
    {0x7, 0, CPUID_ECX,
     .offered = ~(BIT(5) | BIT(7) | BIT(13) | BIT(23) | BIT(24) | BIT(29) | BIT(30)),
     .optional = BIT(2) | BIT(22),
     .names = "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512vbmi2 shstk gfni vaes vpclmulqdq "
              "avx512vnni avx512bitalg tme avx512vpopcntdq - la57 - - - - - rdpid kl bus-lock-detect "
              "cldemote - movdiri movdir64b enqcmd sgx-lc pks"},
    {0x7, 0, CPUID_EDX,
     .offered = ~(BIT(5) | BIT(18) | BIT(19) | BIT(20) | BIT(22) | BIT(24) | BIT(25) | BIT(30)),
     .optional = BIT(4) | BIT(10) | BIT(26) | BIT(27) | BIT(28) | BIT(31),
     .names = "- - avx512-4vnniw avx512-4fmaps fsrm uintr - - avx512-vp2intersect srbds-ctrl md-clear "
              "rtm-always-abort - tsx-force-abort serialize hybrid tsxldtrk - pconfig arch-lbr ibt - "
              "amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities "
              "core-capability ssbd"},
    {0x7, 1, CPUID_EAX,
     .offered = BIT(4) | BIT(5) | BIT(10) | BIT(11) | BIT(12) | BIT(23),
     .names = "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrcs - - - - - - - "
              "wrmsrns amx-fp16 - avx-ifma lam - - - - - - -"},
    {0xd, 0, CPUID_EAX, .offered = 0x2e7, .v2 = 0x3, .v3 = 0x7,
     .names = "x87 sse avx bndregs bndcsr opmask zmm-hi256 hi16-zmm - pkru - - - - - - - - - - - - - "
              "- - - - - - - - -"},
    {0xd, 1, CPUID_EAX, .offered = 0xf, .optional = 0x7,
     .names = "xsaveopt xsavec xgetbv1 xsaves xfd - - - - - - - - - - - - - - - - - - - - - - - - - - -"},
    {0x40000001, 0, CPUID_EAX,
     .offered = BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(11) | BIT(13) | BIT(14) | BIT(24),
     .optional = BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(11) | BIT(13) | BIT(24),
     .names = "kvmclock kvm-nopiodelay kvm-mmu kvmclock2 kvm-asyncpf kvm-steal-time kvm-pv-eoi "
              "kvm-pv-unhalt - kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control "
              "kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id - - - - - - - - "
              "kvmclock-stable-bit - - - - - - -"},
    {0x80000001, 0, CPUID_ECX,
     .offered = ~(BIT(2) | BIT(3) | BIT(10) | BIT(12) | BIT(13) | BIT(15) | BIT(19) | BIT(22) | BIT(23) | BIT(24) | BIT(27) | BIT(28)),
     .v2 = BIT(0), .v3 = BIT(5), .optional = BIT(4) | BIT(8),
     .names = "lahf-lm cmp-legacy svm extapic cr8-legacy abm sse4a misalignsse 3dnowprefetch osvw ibs "
              "xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb - dbx "
              "perftsc perfctr-llc mwaitx - -"},
    {0x80000001, 0, CPUID_EDX, .offered = ~(BIT(19)), .v2 = BIT(29), .optional = ~BIT(19),
     .names = "fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - mp nx - "
              "mmxext mmx fxsr fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
    {0x80000007, 0, CPUID_EDX, .offered = BIT(8),
     .names = "- - - - - - - - invtsc - - - - - - - - - - - - - - - - - - - - - - -"},
    {0x80000008, 0, CPUID_EBX,
     .offered = BIT(0) | BIT(1) | BIT(2) | BIT(9) | BIT(12) | BIT(14) | BIT(15) | BIT(17) | BIT(18) | BIT(24) | BIT(25) | BIT(26) | BIT(28),
     .optional = BIT(0) | BIT(2) | BIT(12) | BIT(14) | BIT(15) | BIT(24),
     .names = "clzero irperf xsaveerptr - - - - - - wbnoinvd - - amd-ibpb - amd-ibrs amd-stibp - "
              "amd-stibp-always-on ibrs-same-mode - - - - - amd-ssbd virt-ssbd amd-no-ssb - amd-psfd "
              "- - -"},
    {0x80000021, 0, CPUID_EAX, .offered = BIT(0) | BIT(2) | BIT(6) | BIT(8),
     .optional = BIT(2) | BIT(6),
     .names = "no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - "
              "auto-ibrs - - - - - - - - - - - - - - - - - - - - - - -"},
};
/* clang-format on */

const size_t cpuid_feature_row_count = ARRAY_COUNT(cpuid_feature_rows);

void cpuid_feature_name(const struct cpuid_feature_row *row, unsigned bit, char *out_name)
{
    const char *at = row->names;

    for (unsigned skipped = 0; skipped < bit && at != NULL; skipped++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL || *at == '-')
        (void)snprintf(out_name, CPUID_FEATURE_NAME_BYTES, "bit %u", bit);
    else
        (void)snprintf(out_name, CPUID_FEATURE_NAME_BYTES, "%.*s", (int)strcspn(at, " "), at);
}

const char *cpuid_register_name(enum cpuid_register reg)
{
    static const char *const names[] = {
        [CPUID_EAX] = "eax", [CPUID_EBX] = "ebx", [CPUID_ECX] = "ecx", [CPUID_EDX] = "edx"};

    return names[reg];
}
