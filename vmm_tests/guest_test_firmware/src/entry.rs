//! The first instructions: they keep the registers that the machine has set.
#![allow(
    unsafe_code,
    reason = "it is entered without a stack, and gets registers"
)]

use core::arch::global_asm;

/// The registers at the first instruction.
#[repr(C)]
pub(crate) struct Registers {
    pub(crate) rbp: u64,
    pub(crate) r8: u64,
    pub(crate) r9: u64,
    pub(crate) r10: u64,
    pub(crate) r11: u64,
    pub(crate) r12: u64,
    pub(crate) rflags: u64,
    pub(crate) rip: u64,
}

// The stack is where that of the real firmware is: it ends at 0x80000. Eight registers and 0 as the address to return to,
// with which the stack is aligned as a called function expects.
global_asm!(
    ".section .text.entry, \"ax\"",
    ".globl _start",
    "_start:",
    "mov rsp, 0x80000",
    "lea rax, [rip + _start]",
    "push rax",
    "pushfq",
    "push r12",
    "push r11",
    "push r10",
    "push r9",
    "push r8",
    "push rbp",
    "cld",
    "mov rdi, rsp",
    "xor ebp, ebp",
    "push 0",
    "jmp {enter}",
    ".text",
    enter = sym enter,
);

/// Called once, with the registers on the stack.
extern "C" fn enter(registers: &Registers) -> ! {
    crate::run(registers)
}

/// What the compiled core library refers to for unwinding, which does not happen here.
// SAFETY: no other symbol has this name, and nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
