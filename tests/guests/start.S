/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.S - from the PVH entry to C in ring 3, and the little that ring 0 does afterwards.
 *
 * All work happens in ring 3, because some KVMs run only that natively. Ring 0 sets up long mode,
 * one LAPIC timer a CPU and the second CPU; then it only counts ticks, and serves as "sleep" the
 * general protection fault that HLT raises in ring 3. Any other exception is printed and stops.
 *
 * Memory: all from 1 MiB, and the second CPU's start copied to 0x8000; identity map of 16 GiB in 2 MiB pages,
 * open to ring 3. The task state segments' permission bitmaps are zero: ring 3 may use every port.
 */
#define CODE0 0x08
#define DATA0 0x10
#define DATA3 0x1b
#define CODE3 0x23
#define TSS0 0x28
#define TSS1 0x38

#define LAPIC 0xfee00000
#define TIMER_VECTOR 0x40
#define MSR_EFER 0xc0000080
#define MSR_KVMCLOCK 0x4b564d01
#define MSR_GS_BASE 0xc0000101

	/* ELF note: XEN_ELFNOTE_PHYS32_ENTRY (18), the 32-bit entry of the PVH boot ABI. */
	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long start32

	.section .text
	.code32
	.globl start32
start32:
	cli
	movl %ebx, start_info
	movl $stack0_top, %esp
	movb $0xff, %al /* no interrupt comes through the legacy controllers */
	outb %al, $0x21
	outb %al, $0xa1
	lgdtl gdt_pointer32
	call enter_long_mode
	ljmp $CODE0, $start64

/* Turns on paging; the caller makes the far jump. */
enter_long_mode:
	movl $0x40620, %eax /* PAE, OSFXSR, OSXMMEXCPT; OSXSAVE only where it exists */
	pushl %ebx
	movl %eax, %esi
	movl $1, %eax
	cpuid
	testl $(1 << 26), %ecx
	jnz 1f
	andl $~0x40000, %esi
1:	popl %ebx
	movl %esi, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $MSR_EFER, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl $0x80050033, %eax
	movl %eax, %cr0
	ret

	.code64
start64:
	movw $DATA0, %ax
	movw %ax, %ss
	movw %ax, %ds
	movw %ax, %es
	movq $stack0_top, %rsp
	call build_idt
	xorl %edi, %edi
	jmp cpu_start

/* edi: number of this CPU. Loads its tables, starts its timer, enters ring 3. */
cpu_start:
	lidt idt_pointer
	movl %edi, %eax
	shll $4, %eax
	addl $TSS0, %eax
	ltr %ax
	movq %cr4, %rax
	testl $0x40000, %eax
	jz 1f
	movl $0xd, %eax /* XCR0: what CPUID offers of x87, SSE and AVX */
	xorl %ecx, %ecx
	cpuid
	andl $7, %eax
	xorl %edx, %edx
	xorl %ecx, %ecx
	xsetbv
1:	movl %edi, %ebx
	/* The kvmclock page of this CPU. */
	movl %ebx, %eax
	shll $6, %eax
	leaq clock_pages(%rax), %rax
	orl $1, %eax
	xorl %edx, %edx
	movl $MSR_KVMCLOCK, %ecx
	wrmsr
	/* LAPIC: software enable before any vector is unmasked, then a periodic timer. */
	movl $LAPIC, %r8d
	movl $0x1ff, 0xf0(%r8)
	movl $0, 0x80(%r8)
	movl $0xb, 0x3e0(%r8)
	movl $(0x20000 | TIMER_VECTOR), 0x320(%r8)
	movl $4000000, 0x380(%r8) /* 250 Hz on KVM's 1 GHz LAPIC */
	movl $1, %eax
	xchgl %eax, cpu_is_up(, %rbx, 4)
	/* iretq to ring 3 */
	movl %ebx, %eax
	shll $16, %eax
	leaq user_stacks + 0x10000(%rax), %rcx
	pushq $DATA3
	pushq %rcx
	pushq $0x202
	pushq $CODE3
	leaq user_start(%rip), %rax
	pushq %rax
	movl %ebx, %edi
	iretq

user_start:
	subq $8, %rsp
	jmp guest_main

/* Wakes CPU 1: the trampoline goes to 0x8000; INIT, start-up. Called in ring 3; the LAPIC page is open to it. */
	.globl start_second_cpu
start_second_cpu:
	movl $trampoline, %esi
	movl $0x8000, %edi
	movl $(trampoline_end - trampoline), %ecx
	rep movsb
	movl $LAPIC, %r8d
	movl $0x01000000, 0x310(%r8)
	movl $0x00004500, 0x300(%r8)
	movl $2000, %ecx
1:	pause
	decl %ecx
	jnz 1b
	movl $0x01000000, 0x310(%r8)
	movl $0x00004608, 0x300(%r8)
	ret

build_idt:
	xorl %ecx, %ecx
1:	leaq exception_stubs(, %rcx, 8), %rax
	call set_gate
	incl %ecx
	cmpl $32, %ecx
	jb 1b
	movl $13, %ecx
	leaq general_protection(%rip), %rax
	call set_gate
	movl $TIMER_VECTOR, %ecx
	leaq timer_tick(%rip), %rax
	call set_gate
	movl $0xff, %ecx
	leaq spurious(%rip), %rax
	jmp set_gate

/* ecx: vector, rax: handler. Interrupt gate, ring 0. */
set_gate:
	movl %ecx, %edi
	shll $4, %edi
	leaq idt(%rdi), %rdi
	movw %ax, (%rdi)
	movw $CODE0, 2(%rdi)
	movw $0x8e00, 4(%rdi)
	shrq $16, %rax
	movw %ax, 6(%rdi)
	movq $0, 8(%rdi)
	ret

timer_tick:
	pushq %rax
	pushq %rcx
	movl $LAPIC, %ecx
	movl 0x20(%rcx), %eax
	shrl $24, %eax
	incq timer_ticks(, %rax, 8)
	movl $0, 0xb0(%rcx)
	popq %rcx
	popq %rax
spurious:
	iretq

/* HLT in ring 3 comes here: wait for one interrupt, then go on behind it. */
general_protection:
	pushq %rax
	movq 16(%rsp), %rax
	cmpb $0xf4, (%rax)
	jne 1f
	incq 16(%rsp)
	sti
	hlt
	cli
	popq %rax
	addq $8, %rsp
	iretq
1:	popq %rax
	pushq $13
	jmp exception

	.balign 8
exception_stubs:
	.set vector, 0
	.rept 32
	.balign 8
	pushq $vector
	jmp exception
	.set vector, vector + 1
	.endr

/* Prints "EXCEPTION vv rip" by ring 0 and stops; the interpreter is slow, but this is the end. */
exception:
	movq (%rsp), %rdi
	movq 8(%rsp), %rsi
	movq 16(%rsp), %rdx
	movq %cr2, %rcx
	andq $~15, %rsp
	call guest_exception
1:	cli
	hlt
	jmp 1b

	/* The second CPU starts here in real mode, at 0x8000. */
	.section .text
	.balign 16
	.code16
trampoline:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl gdt_pointer_low - trampoline + 0x8000
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $0x48, $trampoline32 - trampoline + 0x8000
	.code32
trampoline32:
	movw $DATA0, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw %ax, %es
	movl $stack1_top, %esp
	movl $enter_long_mode, %eax
	call *%eax
	ljmp $CODE0, $trampoline64 - trampoline + 0x8000
	.code64
trampoline64:
	movw $DATA0, %ax
	movw %ax, %ss
	movw %ax, %ds
	movw %ax, %es
	movq $stack1_top, %rsp
	movl $1, %edi
	movabsq $cpu_start, %rax
	jmp *%rax
	.balign 4
gdt_pointer_low:
	.word gdt_end - gdt - 1
	.long gdt
trampoline_end:

	.section .data
	.balign 16
gdt:
	.quad 0
	.quad 0x00af9b000000ffff /* 08: code, ring 0, 64 bits */
	.quad 0x00cf93000000ffff /* 10: data, ring 0 */
	.quad 0x00cff3000000ffff /* 18: data, ring 3 */
	.quad 0x00affb000000ffff /* 20: code, ring 3, 64 bits */
	/* 28, 38: the task state segments at 0x180000 and 0x184000. */
	.quad 0x0000891800002068, 0
	.quad 0x0000891840002068, 0
	.quad 0x00cf9b000000ffff /* 48: code, ring 0, 32 bits */
gdt_end:
gdt_pointer32:
	.word gdt_end - gdt - 1
	.long gdt
	.balign 8
idt_pointer:
	.word 4095
	.quad idt
	.globl start_info
start_info:
	.quad 0

	/* Ring 0 stack, and a permission bitmap of zeros for all 65536 ports. */
	.section .tss, "aw"
	.macro task_state stack
	.long 0
	.quad \stack
	.fill 0x66 - 12, 1, 0
	.word 0x68
	.fill 8192, 1, 0
	.byte 0xff
	.endm
	task_state interrupt_stack0_top
	.balign 0x4000
	task_state interrupt_stack1_top

	/* 16 GiB in 2 MiB pages: present, writable, ring 3. */
	.section .data.pages, "aw"
	.balign 4096
pml4:
	.quad pdpt + 7
	.fill 511, 8, 0
pdpt:
	.set at, 0
	.rept 16
	.quad directories + at + 7
	.set at, at + 4096
	.endr
	.fill 496, 8, 0
directories:
	.set at, 0
	.rept 16 * 512
	.quad at + 0x87
	.set at, at + 0x200000
	.endr

	.bss
	.balign 4096
idt:	.skip 4096
	.globl clock_pages, timer_ticks, cpu_is_up, user_stacks
clock_pages: .skip 128
timer_ticks: .skip 16
cpu_is_up: .skip 8
	.balign 4096
	.skip 8192
stack0_top:
	.skip 8192
stack1_top:
	.skip 8192
interrupt_stack0_top:
	.skip 8192
interrupt_stack1_top:
user_stacks: .skip 0x20000
